"""Video columns of Hugging Face ``datasets``, read with robustvid's own decoder."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from robustvid.data.decode import count_frames, read_frames
from robustvid.data.listing import need_folder
from robustvid.data.videos import IndexedVideos
from robustvid.errors import DataError, MissingPackageError


class HuggingFaceVideos(IndexedVideos):
    """The rows of a table with a column of videos and a column of labels.

    Videos that the table holds as bytes are written to a temporary folder when they are first read.
    """

    def __init__(
        self, root: str | Path | None = None, split: str = "test", video: str | None = None, label: str = "label"
    ) -> None:
        """Open the table.

        Args:
            root: a folder that ``save_to_disk`` made, of Parquet files with a column of videos, or in the layout of
                ``videofolder``: ``<split>/<class>/*.mp4``.
            split: name of the split; of a table without splits, any.
            video: the column of videos; the only one when None.
            label: the column of labels: class labels, or names or numbers that occur.

        Raises:
            MissingPackageError: ``datasets`` is not installed.
            DataError: the folder cannot be read as a table, or it has no such columns.
        """
        folder = need_folder(root, "huggingface")
        table = _open(folder, split)
        self._column = _video_column(table, video, folder)
        if label not in table.column_names:
            raise DataError(f"{folder} has no column {label!r}; it has {', '.join(table.column_names)}")
        classes, labels = _labels(table, label)
        super().__init__(folder.name, split, classes, [f"{index:06d}" for index in range(len(table))], labels)
        self._rows = table.cast_column(self._column, _datasets().Video(decode=False))
        self._spilt = TemporaryDirectory(prefix="robustvid-")
        self._counts: dict[int, int] = {}
        weakref.finalize(self, self._spilt.cleanup)

    def path(self, index: int) -> Path:
        """Return the file of video ``index``."""
        spilt = Path(self._spilt.name, self.ids[index])
        if spilt.exists():
            return spilt
        row = self._rows[index][self._column] or {}
        if row.get("bytes") is None:
            if not row.get("path"):
                raise DataError(f"row {index} of {self.name} has neither a path nor the bytes of a video")
            return Path(row["path"])
        unfinished = spilt.with_suffix(".part")
        unfinished.write_bytes(row["bytes"])
        return unfinished.rename(spilt)

    def frame_count(self, index: int) -> int:
        """Return the number of frames of video ``index``, counted once."""
        if index not in self._counts:
            self._counts[index] = count_frames(self.path(index))
        return self._counts[index]

    def read(self, index: int, numbers: Sequence[int]) -> Tensor:
        """Return frames of video ``index`` by number, as :func:`read_frames` does."""
        return read_frames(self.path(index), numbers)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingPackageError(f"tables of Hugging Face need datasets (pip install datasets): {error}") from None
    return datasets


def _open(folder: Path, split: str) -> Any:
    datasets = _datasets()
    try:
        saved = (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()
        table = datasets.load_from_disk(str(folder)) if saved else datasets.load_dataset(str(folder))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{folder} cannot be read as a table of datasets: {told}") from None
    if not hasattr(table, "column_names"):
        raise DataError(f"{folder} holds {type(table).__name__}; wanted a table")
    if isinstance(table, dict):
        if split not in table:
            raise DataError(f"{folder} has no split {split!r}; it has {', '.join(table)}")
        return table[split]
    return table


def _video_column(table: Any, wanted: str | None, folder: Path) -> str:
    found = [name for name, kind in table.features.items() if isinstance(kind, _datasets().Video)]
    if wanted is None and len(found) == 1:
        return str(found[0])
    if wanted in found:
        return str(wanted)
    raise DataError(
        f"{folder} has the columns of videos {', '.join(found) or 'none'}; "
        + (f"not {wanted!r}" if wanted else "name one: huggingface:video=NAME")
    )


def _labels(table: Any, column: str) -> tuple[tuple[str, ...], list[int]]:
    values, kind = table[column], table.features[column]
    names = getattr(kind, "names", None)
    if names:
        labels = [int(value) for value in values]
        if labels and not 0 <= min(labels) <= max(labels) < len(names):
            raise DataError(f"column {column!r} has a row without a label")
        return tuple(names), labels
    found = sorted(set(values))
    if found and all(isinstance(value, int) for value in found):
        found = list(range(max(found) + 1))
    return tuple(map(str, found)), [found.index(value) for value in values]
