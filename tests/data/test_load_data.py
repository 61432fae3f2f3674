import pytest

import robustvid.data
from robustvid.contracts import VideoDataset
from robustvid.data import DATASETS, load_data
from robustvid.errors import DataError, UnknownNameError

MINE = """
class Mine:
    name, classes = "mine", ("a", "b")
    def __init__(self, split, root="none", **options):
        self.split, self.root, self.options = split, root, options
    def __len__(self):
        return 1
    def sample(self, index, clip):
        raise NotImplementedError

def nothing(split):
    return None
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


def test_motion10_by_name(small_motion10):
    data = load_data("motion10", root=small_motion10, split="train")
    assert isinstance(data, VideoDataset)
    assert (data.split, len(data)) == ("train", 30)
    assert load_data("motion10", root=small_motion10).split == "test"


def test_a_folder_by_name(small_motion10):
    data = load_data("folder", root=small_motion10 / "motion10-v1", classes=["up", "down"])
    assert (len(data), data.classes) == (4, ("up", "down"))


def test_ones_own_dataset(mine):
    data = load_data(f"{mine}:Mine", split="val", fold=3)
    assert (data.split, data.root, data.options) == ("val", "none", {"fold": 3})
    assert load_data(f"{mine}:Mine", root="here").root == "here"
    with pytest.raises(DataError, match="returned NoneType"):
        load_data(f"{mine}:nothing")


def test_every_registered_name_loads():
    assert DATASETS.names() == ["cache", "folder", "hmdb51", "huggingface", "kinetics", "motion10", "ssv2", "ucf101"]
    for name in DATASETS.names():
        assert callable(DATASETS.load(name))


def test_mistakes_are_explained(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'motion10'"):
        load_data("motion01")
    with pytest.raises(DataError, match="needs root"):
        load_data("folder")
    with pytest.raises(DataError, match=r"unexpected keyword argument 'sice'.*it takes \(root"):
        load_data("folder", root=tmp_path, sice=3)


def test_read_frames_is_at_hand():
    assert robustvid.data.read_frames.__module__ == "robustvid.data.decode"
