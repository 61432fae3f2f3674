import pytest
import torch

from robustvid.contracts import ClipSpec, VideoDataset
from robustvid.data.decode import read_frames, write_video
from robustvid.data.folder import FolderDataset
from robustvid.errors import DataError, DecodeError

CLIP = ClipSpec(frames=4, stride=1, size=(16, 16))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "video.mp4"
    noise = torch.randint(0, 256, (10, 24, 32, 3), generator=torch.Generator().manual_seed(0)).byte()
    write_video(path, noise, 25)
    return path.read_bytes()


def put(root, video, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video)


def test_classes_are_sorted_and_take_turns(tmp_path, video):
    put(tmp_path, video, "test/walk/b.mp4", "test/walk/a.mp4", "test/run/d.mp4", "test/run/c.mp4", "test/run/e.avi")
    data = FolderDataset(tmp_path, "test")
    assert isinstance(data, VideoDataset)
    assert (data.name, data.split, data.classes, len(data)) == (tmp_path.name, "test", ("run", "walk"), 5)
    assert data.ids == ["test/run/c", "test/walk/a", "test/run/d", "test/walk/b", "test/run/e"]
    assert data.labels == [0, 1, 0, 1, 0]
    assert data.path(4) == tmp_path / "test/run/e.avi"


def test_samples_are_centred_resized_and_cropped(tmp_path, video):
    put(tmp_path, video, "test/run/a.mp4")
    sample = FolderDataset(tmp_path).sample(0, CLIP)
    assert sample[0::2] == ("test/run/a", 0)
    assert sample.frames.shape == (4, 16, 16, 3)
    whole = FolderDataset(tmp_path).sample(0, ClipSpec(4, 1, (24, 32)))
    assert torch.equal(whole.frames, read_frames(tmp_path / "test/run/a.mp4", [3, 4, 5, 6]))


def test_splits_are_folders_or_absent(tmp_path, video):
    put(tmp_path, video, "train/run/a.mp4", "val/run/b.mp4")
    assert FolderDataset(tmp_path, "val").ids == ["val/run/b"]
    assert FolderDataset(tmp_path / "train", "anything").ids == ["run/a"]
    with pytest.raises(DataError, match=r"no videos in .*test/<class>"):
        FolderDataset(tmp_path, "test")


def test_what_is_no_video_is_left_aside(tmp_path, video):
    put(tmp_path, video, "run/a.MP4", "run/b.txt", "run/.hidden.mp4", ".cache/x.mp4", "loose.mp4", "empty/notes.md")
    data = FolderDataset(tmp_path)
    assert data.ids == ["run/a"]
    assert data.classes == ("run",)


def test_an_explicit_class_list_sets_the_labels(tmp_path, video):
    put(tmp_path, video, "HammerThrow/a.mp4", "Hammering/a.mp4", "Skiing/a.mp4")
    data = FolderDataset(tmp_path, classes=["Hammering", "HammerThrow"])
    assert data.classes == ("Hammering", "HammerThrow")
    assert data.ids == ["Hammering/a", "HammerThrow/a"]
    with pytest.raises(DataError, match=r"no videos of Swimming in .*it holds HammerThrow, Hammering, Skiing"):
        FolderDataset(tmp_path, classes=["Skiing", "Swimming"])


def test_bad_folders_are_explained(tmp_path, video):
    with pytest.raises(DataError, match="needs root"):
        FolderDataset()
    with pytest.raises(DataError, match="no folder"):
        FolderDataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no videos in .*\.avi, \.mkv"):
        FolderDataset(tmp_path)
    put(tmp_path, video, "run/a.mp4", "run/a.avi")
    with pytest.raises(DataError, match=r"2 videos in .* are called run/a"):
        FolderDataset(tmp_path)


def test_a_broken_video_is_named_when_it_is_read(tmp_path, video):
    put(tmp_path, video[:500], "run/a.mp4")
    with pytest.raises(DecodeError, match=r"run/a\.mp4"):
        FolderDataset(tmp_path).sample(0, CLIP)


def test_real_files_make_a_dataset(real_videos):
    data = FolderDataset(real_videos.parent)
    assert data.classes == ("video",)
    frames = data.sample(data.ids.index("video/ucf101_v_ApplyEyeMakeup_g01_c01"), ClipSpec(16, 4, (112, 112))).frames
    assert frames.shape == (16, 112, 112, 3)
