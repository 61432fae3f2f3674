"""Videos by a list of paths and labels, as other tools keep it: CSV, TSV, mmaction2's and pytorchvideo's text."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from robustvid.classes import read_classes
from robustvid.data.listing import inside, present, read_lines
from robustvid.data.videos import VideoFile, VideoFiles
from robustvid.errors import DataError
from robustvid.registry import did_you_mean

LIST_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
_COLUMNS = ("path", "label", "split", "group")


class _Line(NamedTuple):
    path: str
    label: str
    split: str = ""
    group: str = ""


class ListedVideos(VideoFiles):
    """Videos, or folders of frames, by a list.

    A list is CSV or TSV with a header that names ``path`` and ``label``, and perhaps ``split`` and ``group``; or lines
    ``PATH LABEL``, separated by a comma, a tab or a blank, as pytorchvideo and mmaction2 have them; or mmaction2's
    lines ``FOLDER FRAMES LABEL`` for folders of frames, where the number of frames is counted again. Labels are names,
    or numbers from 0. Absolute paths have to be below the root.
    """

    def __init__(
        self,
        file: str | Path,
        root: str | Path | None = None,
        split: str = "test",
        classes: str | Path | None = None,
        missing: str = "stop",
    ) -> None:
        """Read the list and find the videos.

        Args:
            file: the list.
            root: what its paths are below; its own folder when None.
            split: of a list with the column ``split``, the lines to take; others hold one split, whatever its name.
            classes: a file of class names in the order of the labels; without it, the names in the list sorted, or the
                numbers themselves.
            missing: ``"stop"`` where a listed video is missing, or ``"skip"`` it.

        Raises:
            DataError: the list cannot be read, a label is not a class, a path leaves the root, or a video is missing.
        """
        file = Path(file).expanduser()
        folder = file.parent if root is None else Path(root).expanduser()
        lines = _read(file)
        names = _names(lines, file) if classes is None else read_classes(classes)
        if any(line.split for line in lines):
            lines = [line for line in lines if line.split == split]
        paths = [inside(line.path, str(file), folder) for line in lines]
        labels = [_label(line.label, names, file) for line in lines]
        videos = [VideoFile(*facts) for facts in zip(paths, labels, (line.group for line in lines), strict=True)]
        super().__init__(file.stem, split, names, folder, present(folder, videos, str(file), missing))


def _read(file: Path) -> list[_Line]:
    lines = read_lines(file)
    if not lines:
        raise DataError(f"{file} is empty")
    separator = "\t" if "\t" in lines[0] else "," if "," in lines[0] else " "
    header = [name.strip().lower() for name in lines[0].split(separator)]
    if separator != " " and {"path", "label"} <= set(header):
        table = csv.DictReader(lines[1:], fieldnames=header, delimiter=separator)
        return [_Line(*((line.get(name) or "").strip() for name in _COLUMNS)) for line in table]
    if separator != " ":
        parts = [[part.strip() for part in line] for line in csv.reader(lines, delimiter=separator)]
        wrong = next((place for place, part in enumerate(parts) if len(part) != 2), None)
        if wrong is not None:
            raise DataError(
                f"{file}, line {wrong + 1}: {lines[wrong]!r}; wanted a header with path and label, or two parts"
            )
        return [_Line(*part) for part in parts]
    return [_words(line, file) for line in lines]


def _words(line: str, file: Path) -> _Line:
    """Split a line from its end: paths may have blanks."""
    path, _, label = line.rpartition(" ")
    if not path:
        raise DataError(f"{file}: {line!r}; wanted PATH LABEL, or FOLDER FRAMES LABEL")
    folder, _, frames = path.rstrip().rpartition(" ")
    if folder and frames.isdecimal() and not Path(folder).suffix:
        path = folder
    return _Line(path.strip(), label)


def _names(lines: list[_Line], file: Path) -> tuple[str, ...]:
    """Return the labels that occur, in order; numbers from 0 to the largest where all are numbers."""
    found = {line.label for line in lines}
    if all(label.isdecimal() for label in found):
        found = set(map(str, range(max(map(int, found)) + 1)))
    if len(found) < 2:
        raise DataError(f"{file} has one label only; give the classes as {file}:classes=FILE")
    return tuple(sorted(found, key=lambda label: (int(label), "") if label.isdecimal() else (0, label)))


def _label(label: str, names: tuple[str, ...], file: Path) -> int:
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < len(names):
        return int(label)
    raise DataError(f"{file}: label {label!r} is not one of the {len(names)} classes.{did_you_mean(label, names)}")
