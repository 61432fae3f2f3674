"""Tables of Hugging Face datasets: videofolder, saved to disk, by path and by bytes."""

import miniatures
import pytest

import robustvid as rv
from robustvid.errors import DataError
from robustvid.testing import check_dataset

datasets = pytest.importorskip("datasets", reason="tables of Hugging Face need datasets")
CLIP = rv.ClipSpec(4, 2, (32, 32))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for split, name, seed in (("train", "run", 0), ("train", "sit", 1), ("test", "run", 2), ("test", "sit", 3)):
        miniatures.video(tmp_path / "videos" / split / name / f"{seed}.mp4", seed)
    return tmp_path / "videos"


def test_videofolder(folder):
    data = rv.load_data("huggingface", root=folder)
    assert (data.name, data.split, data.classes, data.labels) == ("videos", "test", ("run", "sit"), [0, 1])
    check_dataset(data, CLIP)
    assert data.frame_count(0) == 20
    assert data.path(0).name == "2.mp4"
    with pytest.raises(DataError, match="no split 'val'; it has train, test"):
        rv.load_data("huggingface", root=folder, split="val")
    with pytest.raises(DataError, match="no column 'class'"):
        rv.load_data("huggingface:label=class", root=folder)
    with pytest.raises(DataError, match="the columns of videos video; not 'clip'"):
        rv.load_data("huggingface:video=clip", root=folder)


def test_bytes_are_read_and_cleaned_up(folder, tmp_path):
    rows = [{"clip": {"path": None, "bytes": path.read_bytes()}, "label": name} for name, path in (
        ("sit", folder / "test/sit/3.mp4"), ("run", folder / "test/run/2.mp4"))]  # fmt: skip
    features = datasets.Features({"clip": datasets.Video(decode=False), "label": datasets.Value("string")})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")
    data = rv.load_data("huggingface", root=tmp_path / "saved")
    assert (data.classes, data.labels) == (("run", "sit"), [1, 0])
    check_dataset(data, CLIP)
    spilt = data.path(0).parent
    assert len(list(spilt.iterdir())) == 2
    del data
    assert not spilt.exists()


def test_what_is_no_table_is_explained(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be read as a table"):
        rv.load_data("huggingface", root=tmp_path / "empty")
