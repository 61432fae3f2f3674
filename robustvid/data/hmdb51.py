"""HMDB51 in its official layout and splits (Kuehne et al., "HMDB: A Large Video Database", ICCV 2011)."""

from __future__ import annotations

import re
from pathlib import Path

from robustvid.data.listing import check_fold, check_split, first_folder, inside, need_folder, present
from robustvid.data.listing import read_lines as _lines
from robustvid.data.videos import VideoFile, VideoFiles
from robustvid.errors import DataError

SPLITS = ("train", "test")
_LISTS = ("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits", "splits", "annotations", ".")
_VIDEOS = ("hmdb51_org", "HMDB51", "videos", ".")
_MARKS = {"1": "train", "2": "test", "0": ""}


class HMDB51(VideoFiles):
    """51 actions, 70 training and 30 test videos of each in three official splits.

    Classes are in alphabetical order. ``groups`` holds class and source: file names end in six fields that tell how the
    clip was seen, such as ``_h_cm_np1_ba_goo_0``, and begin with the name of the film that it was cut from.
    """

    def __init__(
        self, root: str | Path | None = None, split: str = "test", fold: int = 1, missing: str = "stop"
    ) -> None:
        """Read the lists and find the videos.

        Args:
            root: holds ``hmdb51_org/<class>/*.avi`` and ``testTrainMulti_7030_splits/``.
            split: ``"train"`` or ``"test"``.
            fold: 1, 2 or 3, which of the official splits.
            missing: ``"stop"`` where a listed video is missing, or ``"skip"`` it.

        Raises:
            DataError: a list or a video is missing, or a list cannot be read.
        """
        check_split(split, SPLITS, "hmdb51")
        check_fold(fold, "hmdb51")
        folder = need_folder(root, "hmdb51")
        lists = next((folder / place for place in _LISTS if any((folder / place).glob(_pattern(fold)))), None)
        if lists is None:
            raise DataError(f"there are no lists {_pattern(fold)} in {folder}; looked in {', '.join(_LISTS)}")
        classes, splits = read_splits(lists, fold)
        videos = first_folder(folder, [f"{place}/{classes[0]}" for place in _VIDEOS], "folder of videos").parent
        super().__init__("hmdb51", split, classes, videos, present(videos, splits[split], "hmdb51", missing))


def read_splits(lists: Path, fold: int = 1) -> tuple[tuple[str, ...], dict[str, list[VideoFile]]]:
    """Return the classes, and the videos of both splits.

    Args:
        lists: folder of ``<class>_test_split1.txt`` and so on, with lines ``NAME.avi 1``: 1 is training, 2 is test, and
            0 is neither.
        fold: 1, 2 or 3.

    Raises:
        DataError: there are no such lists, or a line is something else.
    """
    files: dict[str, Path] = {}
    for file in sorted(lists.glob(_pattern(fold))):
        name = re.sub(rf"_test_split_?{fold}\.txt$", "", file.name)
        if name in files:
            raise DataError(f"{lists} has two lists of {name}: {files[name].name} and {file.name}")
        files[name] = file
    if len(files) < 2:
        raise DataError(f"{lists} has lists of {len(files)} classes; wanted two or more")
    splits: dict[str, list[VideoFile]] = {split: [] for split in SPLITS}
    for label, (name, file) in enumerate(files.items()):
        for line in _lines(file):
            video, _, mark = line.rpartition(" ")
            if mark not in _MARKS or not video:
                raise DataError(f"{file}: {line!r}; wanted NAME.avi and 0, 1 or 2")
            if _MARKS[mark]:
                path = inside(f"{name}/{video.strip()}", str(file))
                splits[_MARKS[mark]].append(VideoFile(path, label, f"{name} {_source(video.strip())}"))
    return tuple(files), splits


def _pattern(fold: int) -> str:
    return f"*_test_split*{fold}.txt"


def _source(video: str) -> str:
    return re.sub(r"(_[A-Za-z]+){2}_np\d+(_[A-Za-z]+){2}_\d+\.avi$", "", video)
