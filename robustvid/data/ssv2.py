"""Something-Something V2 in its official layout (Goyal et al., ICCV 2017)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustvid.data.listing import check_split, first_file, first_folder, inside, need_folder, present
from robustvid.data.videos import VideoFile, VideoFiles
from robustvid.errors import DataError

_FILES = {"train": "train", "validation": "validation"}
SPLITS = tuple(_FILES)
_VIDEOS = ("20bn-something-something-v2", "videos", ".")


class SomethingSomething(VideoFiles):
    """174 actions of hands with things; which is left and which is right matters, so nothing must mirror them.

    The labels of the official test split are not in its list: measure on ``validation``.
    """

    def __init__(self, root: str | Path | None = None, split: str = "validation", missing: str = "stop") -> None:
        """Read the lists and find the videos.

        Args:
            root: holds ``labels.json``, ``train.json`` and ``validation.json``, also with ``something-something-v2-``
                before the name or in ``labels/`` or ``annotations/``, and videos ``<id>.webm`` in
                ``20bn-something-something-v2/``.
            split: ``"train"`` or ``"validation"``.
            missing: ``"stop"`` where a listed video is missing, or ``"skip"`` it.

        Raises:
            DataError: a list is missing or malformed, a label is not in ``labels.json``, or a video is missing.
        """
        check_split(split, SPLITS, "ssv2")
        folder = need_folder(root, "ssv2")
        classes = read_labels(_list(folder, "labels"))
        listed = read_list(_list(folder, _FILES[split]), classes)
        videos = next((folder / p for p in _VIDEOS if (folder / p / listed[0].path).is_file()), None)
        videos = videos or first_folder(folder, _VIDEOS, "folder of videos")
        super().__init__("ssv2", split, classes, videos, present(videos, listed, "ssv2", missing))


def read_labels(file: Path) -> tuple[str, ...]:
    """Return the class names of ``labels.json``, an object from names to their places, in the order of the places.

    Raises:
        DataError: it is something else.
    """
    table = _read(file, dict)
    try:
        places = {int(place): str(name) for name, place in table.items()}
    except (TypeError, ValueError):
        places = {}
    if len(places) < 2 or sorted(places) != list(range(len(table))):
        raise DataError(f"{file} does not give each class a place from 0 on")
    return tuple(places[place] for place in sorted(places))


def read_list(file: Path, classes: tuple[str, ...]) -> list[VideoFile]:
    """Return the videos of a list, named by its ``id`` and labelled by its ``template`` without brackets.

    Raises:
        DataError: it is something else, or a label is not a class.
    """
    labels = {name: label for label, name in enumerate(classes)}
    videos = []
    for entry in _read(file, list):
        try:
            path, name = inside(f"{entry['id']}.webm", str(file)), entry["template"].replace("[", "").replace("]", "")
        except (KeyError, TypeError, AttributeError):
            raise DataError(f"{file}: {str(entry)[:80]} is no entry with id and template") from None
        if name not in labels:
            raise DataError(f"{file}: {name!r} of video {entry['id']} is not in labels.json")
        videos.append(VideoFile(path, labels[name]))
    if not videos:
        raise DataError(f"{file} lists no videos")
    return videos


def _list(folder: Path, name: str) -> Path:
    places = [
        f"{place}{prefix}{name}.json"
        for place in ("", "labels/", "annotations/")
        for prefix in ("", "something-something-v2-")
    ]
    return first_file(folder, places, f"list {name}.json")


def _read(file: Path, kind: type) -> Any:
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}") from None
    if not isinstance(found, kind):
        raise DataError(f"{file} holds {type(found).__name__}; wanted {kind.__name__}")
    return found
