"""UCF101 in its official layout and splits (Soomro, Zamir and Shah, "UCF101", CRCV-TR-12-01, 2012)."""

from __future__ import annotations

import re
from pathlib import Path

from robustvid.classes import read_classes
from robustvid.data.listing import check_fold, check_split, first_file, first_folder, inside, need_folder, present
from robustvid.data.listing import read_lines as _lines
from robustvid.data.videos import VideoFile, VideoFiles
from robustvid.errors import DataError

SPLITS = ("train", "test")
_LISTS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "annotations", ".")
_VIDEOS = ("UCF-101", "UCF101", "videos", ".")


class UCF101(VideoFiles):
    """101 actions in 13,320 videos, cut from scenes of which none is in both splits.

    Labels and the order of the classes are those of ``classInd.txt``, which sorted folders do not have: four classes
    are in another place there. ``groups`` holds class and scene, such as ``"ApplyEyeMakeup g01"``.
    """

    def __init__(
        self, root: str | Path | None = None, split: str = "test", fold: int = 1, missing: str = "stop"
    ) -> None:
        """Read the lists and find the videos.

        Args:
            root: holds ``UCF-101/<class>/*.avi`` and ``ucfTrainTestlist/``.
            split: ``"train"`` or ``"test"``.
            fold: 1, 2 or 3, which of the official splits.
            missing: ``"stop"`` where a listed video is missing, or ``"skip"`` it.

        Raises:
            DataError: a list or a video is missing, a list contradicts the classes, or a scene is in both splits.
        """
        check_split(split, SPLITS, "ucf101")
        check_fold(fold, "ucf101")
        folder = need_folder(root, "ucf101")
        lists = first_file(folder, [f"{place}/classInd.txt" for place in _LISTS], "list of classes").parent
        classes, splits = read_splits(lists, fold)
        videos = first_folder(folder, [f"{place}/{classes[0]}" for place in _VIDEOS], "folder of videos").parent
        listed = [_as_stored(video, videos, classes) for video in splits[split]]
        super().__init__("ucf101", split, classes, videos, present(videos, listed, "ucf101", missing))


def read_splits(lists: Path, fold: int = 1) -> tuple[tuple[str, ...], dict[str, list[VideoFile]]]:
    """Return the classes, and the videos of both splits.

    Args:
        lists: folder of ``classInd.txt``, ``trainlist01.txt``, ``testlist01.txt`` and so on.
        fold: 1, 2 or 3.

    Raises:
        DataError: a list is missing or contradicts the classes, or a scene is in both splits.
    """
    classes = read_classes(lists / "classInd.txt")
    splits = {split: _read_list(lists / f"{split}list0{fold}.txt", classes) for split in SPLITS}
    shared = {video.group for video in splits["train"]} & {video.group for video in splits["test"]}
    if shared:
        raise DataError(f"{lists}: {len(shared)} scenes are in train and test, {min(shared)} among them")
    return classes, splits


def _read_list(file: Path, classes: tuple[str, ...]) -> list[VideoFile]:
    labels = {name.lower(): label for label, name in enumerate(classes)}  # it has HandStand-, folders HandstandPushups
    videos = []
    for line in _lines(file):
        path, _, number = line.partition(" ")
        match = re.fullmatch(r"([^/]+)/v_.+_(g\d+)_c\d+\.avi", inside(path, str(file)))
        if match is None or match[1].lower() not in labels:
            raise DataError(f"{file}: {line!r}; wanted a line like ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1")
        label = labels[match[1].lower()]
        if number and number != str(label + 1):
            raise DataError(f"{file}: {path} has label {number}, but classInd.txt gives {match[1]} number {label + 1}")
        videos.append(VideoFile(path, label, f"{match[1]} {match[2]}"))
    return videos


def _as_stored(video: VideoFile, videos: Path, classes: tuple[str, ...]) -> VideoFile:
    """Return the video with its folder named as its class, where that is the one that exists."""
    other = f"{classes[video.label]}/{video.path.rpartition('/')[2]}"
    return video._replace(path=other) if not (videos / video.path).exists() and (videos / other).exists() else video
