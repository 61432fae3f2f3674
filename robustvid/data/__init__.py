"""Videos in, labelled uint8 frames out: datasets by name, decoding, sampling, batches."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from robustvid.contracts import VideoDataset
from robustvid.data.decode import read_frames
from robustvid.data.lists import LIST_SUFFIXES, ListedVideos
from robustvid.errors import DataError
from robustvid.registry import Registry, load_object, split_params

__all__ = ["DATASETS", "load_data", "read_frames"]

DATASETS = Registry(
    "dataset",
    {
        "cache": "robustvid.data.cache:open_cache",
        "folder": "robustvid.data.folder:FolderDataset",
        "hmdb51": "robustvid.data.hmdb51:HMDB51",
        "huggingface": "robustvid.data.hugging_face:HuggingFaceVideos",
        "kinetics": "robustvid.data.kinetics:Kinetics",
        "motion10": "robustvid.data.motion10:Motion10",
        "ssv2": "robustvid.data.ssv2:SomethingSomething",
        "ucf101": "robustvid.data.ucf101:UCF101",
    },
)


def load_data(name: str, root: str | Path | None = None, split: str = "test", **options: Any) -> VideoDataset:
    """Return a dataset by name.

    Args:
        name: a name in ``DATASETS``; a list of videos, ``"my/list.csv"``, also ``.tsv`` and ``.txt``; or
            ``"my_pkg.mine:build"`` or ``"path/to/file.py:build"``, a function that is called as
            ``build(split=split, **options)``, with ``root=root`` where a root is given. Options may be part of it:
            ``"ucf101:fold=2"``.
        root: folder that holds the dataset; ``motion10`` needs none.
        split: name of the split.
        **options: what else this dataset takes.

    Raises:
        UnknownNameError: no dataset has this name.
        DataError: the dataset cannot be used, needs a root, or does not take these options.

    Example:
        >>> data = load_data("motion10", split="test")  # doctest: +SKIP
        >>> len(data), data.classes[0]  # doctest: +SKIP
        (400, 'right')
    """
    name, given = split_params(name)
    if twice := sorted(given.keys() & (options.keys() | {"split", "root"})):
        raise DataError(f"dataset {name}: {', '.join(twice)} given twice, in the name and beside it")
    build, options = _find(name, options | given)
    arguments = {"split": split, **options} | ({} if root is None else {"root": root})
    try:
        inspect.signature(build).bind(**arguments)
    except TypeError as error:
        raise DataError(f"dataset {name}: {error}; it takes {inspect.signature(build)}") from None
    data = build(**arguments)
    if not isinstance(data, VideoDataset):
        raise DataError(f"{name} returned {type(data).__name__}; wanted name, split, classes, len() and sample()")
    return data


def _find(name: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return what builds the dataset, and its options."""
    if Path(name).suffix.lower() in LIST_SUFFIXES:
        if not Path(name).expanduser().is_file():
            raise DataError(f"there is no list {name}")
        return ListedVideos, options | {"file": name}
    return load_object(name) if ":" in name else DATASETS.load(name), options
