"""What all readers of official lists share: text files, paths that stay under the root, files that are not there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from robustvid.data.videos import VideoFile
from robustvid.errors import DataError
from robustvid.registry import did_you_mean

MISSING = ("stop", "skip")
_NAMED = 3  # missing files that are named
log = logging.getLogger("robustvid")


def need_folder(root: str | Path | None, dataset: str) -> Path:
    """Return the dataset's folder.

    Raises:
        DataError: none was given, or there is none.
    """
    if root is None:
        raise DataError(f"{dataset} needs root: its folder; docs/data.md shows what has to be in it")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; {dataset} is looked for there")
    return folder


def first_folder(root: Path, names: Sequence[str], what: str) -> Path:
    """Return the first of these folders under ``root`` that exists; ``"."`` is ``root`` itself.

    Raises:
        DataError: there is none; names all places.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"there is no {what} in {root}; looked for {', '.join(names)}")


def first_file(root: Path, names: Sequence[str], what: str) -> Path:
    """Return the first of these files under ``root`` that exists.

    Raises:
        DataError: there is none; names all places.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    raise DataError(f"there is no {what} in {root}; looked for {', '.join(names)}")


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file that are not blank, without the blanks around them.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from None


def inside(path: str, where: str, root: Path | None = None) -> str:
    """Return a path relative to the root, if it stays below it.

    Raises:
        DataError: it climbs out, or it is absolute and not below ``root``.
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    if root is not None and pure.is_relative_to(root.absolute()):
        pure = pure.relative_to(root.absolute())
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or ":" in pure.parts[0]:
        raise DataError(f"{where}: the path {path!r} leaves the folder of the dataset; wanted one below it")
    return pure.as_posix()


def check_split(split: str, known: Sequence[str], dataset: str) -> None:
    """Refuse a split that the dataset does not have.

    Raises:
        DataError: names those that there are.
    """
    if split not in known:
        raise DataError(f"{dataset} has no split {split!r}.{did_you_mean(split, known)} There are: {', '.join(known)}.")


def check_fold(fold: int, dataset: str) -> None:
    """Refuse anything but one of the three official splits.

    Raises:
        DataError: it is another.
    """
    if fold not in {1, 2, 3}:
        raise DataError(f"{dataset} has no fold {fold!r}; there are the official splits 1, 2 and 3")


def present(root: Path, videos: Iterable[VideoFile], dataset: str, missing: str) -> list[VideoFile]:
    """Return the videos whose files exist.

    Args:
        root: what their paths are below.
        videos: as listed.
        dataset: for messages.
        missing: ``"stop"`` where one is missing, or ``"skip"`` them with a warning.

    Raises:
        DataError: a file is missing and that was not to be skipped, or none is there.
    """
    if missing not in MISSING:
        raise DataError(f"missing={missing!r}: wanted {' or '.join(MISSING)}")
    videos = list(videos)
    found = [video for video in videos if (root / video.path).exists()]
    if len(found) == len(videos):
        return found
    gone = [video.path for video in videos if not (root / video.path).exists()]
    told = f"{len(gone):,} of {len(videos):,} videos of {dataset} are missing in {root}: {', '.join(gone[:_NAMED])}"
    told += ", ..." if len(gone) > _NAMED else ""
    if missing == "stop" or not found:
        raise DataError(f"{told}; {dataset}:missing=skip leaves them out")
    log.warning("%s; they are left out", told)
    return found
