"""Kinetics in the layouts of its lists (Kay et al., "The Kinetics Human Action Video Dataset", 2017)."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

from robustvid.classes import read_classes
from robustvid.data.listing import check_split, first_file, inside, need_folder, present
from robustvid.data.videos import VIDEO_SUFFIXES, VideoFile, VideoFiles
from robustvid.errors import DataError
from robustvid.registry import did_you_mean

SPLITS = ("train", "val", "test")
_OTHER_NAMES = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


class Kinetics(VideoFiles):
    """Ten-second clips of videos that are on the web, or were: what is missing is left out, and counted in a warning.

    ``groups`` holds the id of the video on the web.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "val",
        classes: str | Path | None = None,
        missing: str = "skip",
    ) -> None:
        """Read the list of the split and find the videos.

        Args:
            root: holds ``<split>.csv``, or ``annotations/<split>.csv``, with the columns ``label, youtube_id,
                time_start, time_end``, and videos ``<youtube_id>_<six digits>_<six digits>.mp4`` in ``<split>/``, in
                ``<split>/<label>/`` or in itself, in whatever spelling of the label.
            split: ``"train"``, ``"val"`` or ``"test"``.
            classes: a file of class names; those of Kinetics-400 when None.
            missing: ``"skip"`` what is missing, or ``"stop"``.

        Raises:
            DataError: the list is missing or malformed, a label is not a class, or no video is there.
        """
        check_split(split, SPLITS, "kinetics")
        folder = need_folder(root, "kinetics")
        names = _OTHER_NAMES[split]
        file = first_file(
            folder, [f"{place}{name}.csv" for place in ("", "annotations/") for name in names], f"list of {split}"
        )
        known = kinetics400() if classes is None else read_classes(classes)
        files = _files(folder, names)
        videos = [
            video._replace(path=files.get(video.path, f"{split}/{video.path}.mp4")) for video in read_list(file, known)
        ]
        super().__init__("kinetics", split, known, folder, present(folder, videos, "kinetics", missing))


def kinetics400() -> tuple[str, ...]:
    """Return the class names of Kinetics-400 in the order of its models, from torchvision's descriptions of weights."""
    from torchvision.models import get_model_weights

    return tuple(get_model_weights("r3d_18").DEFAULT.meta["categories"])


def read_list(file: Path, classes: tuple[str, ...]) -> Iterator[VideoFile]:
    """Yield the videos of a list, their paths without folder and suffix.

    Raises:
        DataError: a column is missing, a time is no number, or a label is not a class.
    """
    labels = {name: label for label, name in enumerate(classes)}
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for number, line in enumerate(csv.DictReader(opened), start=2):
                name, video = (line["label"] or "").strip().strip('"'), (line["youtube_id"] or "").strip()
                start, end = (int(float(line[key] or "")) for key in ("time_start", "time_end"))
                if name not in labels:
                    raise DataError(
                        f"{file}, line {number}: {name!r} is not one of the {len(classes)} classes."
                        f"{did_you_mean(name, classes)} Other classes are given as kinetics:classes=FILE."
                    )
                yield VideoFile(inside(f"{video}_{start:06d}_{end:06d}", f"{file}, line {number}"), labels[name], video)
    except (KeyError, ValueError, OSError, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{file} is no list of Kinetics with label, youtube_id, time_start, time_end: {error!r}"
        ) from None


def _files(root: Path, splits: tuple[str, ...]) -> dict[str, str]:
    """Return where videos lie by their names without suffix, looking into every folder once."""
    found: dict[str, str] = {}
    for folder in (*(root / split for split in splits), root):
        for path in itertools.chain(sorted(folder.glob("*")), sorted(folder.glob("*/*"))):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                found.setdefault(path.stem, path.relative_to(root).as_posix())
    return found
