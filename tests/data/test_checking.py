"""`robustvid data check` finds what is broken, what is damaged, and what is in two splits."""

import pytest
import torch

from robustvid.data.checking import Listed, check_video, check_videos, leaks, list_dataset, list_folder
from robustvid.data.decode import write_video
from robustvid.data.videos import VideoFile, VideoFiles
from robustvid.errors import DataError


def video(path, seed=0, n=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = torch.randint(0, 256, (n, 24, 32, 3), generator=torch.Generator().manual_seed(seed)).byte()
    write_video(path, noise, 25, crf=10)
    return path


def test_a_good_file_is_described(tmp_path):
    one = check_video(Listed(video(tmp_path / "a.mp4")))
    assert (one.frames, one.decoded, one.seconds, one.width, one.height, one.codec, one.error) == (
        12, 12, 0.48, 32, 24, "h264", "",
    )  # fmt: skip
    assert len(one.sha256) == 64
    assert not one.damaged


def test_broken_and_damaged_files_are_told_apart(tmp_path):
    whole = video(tmp_path / "a.mp4", n=60).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:900])
    middle = bytearray(whole)
    middle[len(whole) // 2 : len(whole) // 2 + 3000] = bytes(3000)
    (tmp_path / "hurt.mp4").write_bytes(middle)
    (tmp_path / "folder.mp4").mkdir()
    cut, hurt, folder = (check_video(Listed(tmp_path / name)) for name in ("cut.mp4", "hurt.mp4", "folder.mp4"))
    assert "Invalid data" in cut.error
    assert "without frames" in folder.error
    assert not hurt.error
    assert hurt.damaged
    assert 0 < hurt.decoded < hurt.frames == 60


def test_a_folder_is_searched_to_its_depth(tmp_path):
    for name in ("train/run/a.mp4", "test/walk/b.avi", "loose.mp4", ".hidden/c.mp4", "train/run/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = [(one.path.name, one.split, one.label) for one in list_folder(tmp_path)]
    assert listed == [("loose.mp4", "", ""), ("b.avi", "test", "walk"), ("a.mp4", "train", "run")]
    assert all(one.error == "the file is empty" for one in check_videos(list_folder(tmp_path), jobs=2))
    with pytest.raises(DataError, match="no folder"):
        list_folder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no videos below"):
        list_folder(tmp_path / "empty")


def test_groups_and_files_in_two_splits_are_leaks(tmp_path):
    video(tmp_path / "x/a.mp4", 1)
    video(tmp_path / "x/b.mp4", 2)
    video(tmp_path / "y/c.mp4", 1)
    train = VideoFiles("mine", "train", ("x", "y"), tmp_path, [VideoFile("x/a.mp4", 0, "g1")])
    test = VideoFiles("mine", "test", ("x", "y"), tmp_path, [VideoFile("x/b.mp4", 0, "g1"), VideoFile("y/c.mp4", 1)])
    found = leaks(list(check_videos(list_dataset(train) + list_dataset(test))))
    assert found[0] == "group g1 of x is in test and train"
    assert found[1] == f"the same video is in test ({tmp_path / 'y/c.mp4'}) and train ({tmp_path / 'x/a.mp4'})"
    assert len(found) == 2
    twice = leaks(list(check_videos(list_folder(tmp_path))))
    assert twice == [f"the same video is labelled x ({tmp_path / 'x/a.mp4'}) and y ({tmp_path / 'y/c.mp4'})"]
