"""Decoded videos kept as one memory-mapped array, so that they are decoded once and read hundreds of times faster.

A cache is a folder of ``frames.u8``, the frames of all videos one after the other, uint8 RGB, and ``cache.json``,
which tells whose they are. Frames are scaled and cropped before they are kept: a cache serves the clip it was made for.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustvid.contracts import ClipSpec, Sample, VideoDataset
from robustvid.data.videos import IndexedVideos
from robustvid.errors import DataError, DecodeError

FRAMES_FILE, INDEX_FILE, SCHEMA = "frames.u8", "cache.json", 1


def write_cache(
    data: IndexedVideos,
    folder: str | Path,
    clip: ClipSpec,
    *,
    whole: bool = False,
    skip: bool = False,
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[DecodeError]:
    """Decode every video once and keep it in ``folder``, which then loads as the dataset ``cache``.

    Args:
        data: what to decode.
        folder: a new folder; it appears when it is complete.
        clip: what the frames are for.
        whole: keep every frame, to cut training clips from; otherwise the evaluation clip alone.
        skip: leave out what cannot be decoded instead of stopping there.
        jobs: threads that decode; one a core when None.
        progress: called with the number of videos done.

    Returns:
        What was left out.

    Raises:
        DataError: the folder exists or cannot be written, or there is nothing to keep.
        DecodeError: a video cannot be read.
    """
    folder = Path(folder)
    if folder.exists():
        raise DataError(f"{folder} exists; give a new folder, or remove it first")
    if whole and clip.crops * clip.views > 1:
        raise DataError("whole videos are kept for training, which knows no views and crops")
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    left_out, videos = [], []
    try:
        unfinished.mkdir(parents=True)
        with (unfinished / FRAMES_FILE).open("wb") as file:
            decoded = _decode_all(data, clip, whole=whole, jobs=jobs)
            for index, result in enumerate(decoded):
                if isinstance(result, DecodeError):
                    if not skip:
                        raise result
                    left_out.append(result)
                else:
                    pixels = result.numpy()
                    file.write(pixels.data)
                    entry = {"id": data.ids[index], "label": data.labels[index], "frames": len(pixels)}
                    videos.append(entry | {"crc32": zlib.crc32(pixels.data), "group": _group(data, index)})
                if progress:
                    progress(index + 1)
        if not videos:
            raise DataError(f"not one of {len(data)} videos of {data.name} can be read")
        index_text = {
            "schema": SCHEMA,
            "name": data.name,
            "split": data.split,
            "digest": getattr(data, "digest", None),
            "classes": list(data.classes),
            "clip": clip.facts(),
            "whole": whole,
            "videos": videos,
        }
        (unfinished / INDEX_FILE).write_text(json.dumps(index_text) + "\n", encoding="utf-8")
        unfinished.rename(folder)
    except OSError as error:
        raise DataError(f"cannot write a cache to {folder}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return left_out


def open_cache(root: str | Path | None = None, split: str | None = None) -> VideoDataset:
    """Frames that ``robustvid data cache`` decoded: :class:`CachedVideos` if whole videos, else :class:`CachedClips`.

    Args:
        root: its folder.
        split: the split it has to be of; any when None.

    Raises:
        DataError: it is no cache, it is damaged, or it holds another split.
    """
    if root is None:
        raise DataError("a cache needs root: the folder that `robustvid data cache` made")
    folder = Path(root).expanduser()
    try:
        index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        if index["schema"] != SCHEMA:
            raise DataError(f"{folder} is a cache of schema {index['schema']}; this robustvid reads {SCHEMA}")
        cache = _Frames(folder, index)
        whole = bool(index["whole"])
    except FileNotFoundError as error:
        raise DataError(f"{folder} is not a cache: there is no {error.filename}") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"the cache {folder} is damaged ({error!r}); make it again") from None
    if split not in {None, cache.split}:
        raise DataError(f"{folder} holds split {cache.split!r} of {cache.name}, not {split!r}")
    return CachedVideos(cache) if whole else CachedClips(cache)


class _Frames:
    """The mapped frames and what is known of them; every video is checked when it is first read."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder, self.clip = folder, ClipSpec.read(index["clip"])
        self.name, self.split, self.digest = str(index["name"]), str(index["split"]), index["digest"]
        self.classes = tuple(map(str, index["classes"]))
        videos = index["videos"]
        self.ids = [str(video["id"]) for video in videos]
        self.labels = [int(video["label"]) for video in videos]
        self.groups = [str(video["group"]) for video in videos]
        self.counts = [int(video["frames"]) for video in videos]
        self._sums = [int(video["crc32"]) for video in videos]
        self._starts = [0, *accumulate(self.counts)]
        if min(self.counts) < 1 or not all(0 <= label < len(self.classes) for label in self.labels):
            raise ValueError("a video without frames, or a label without a class")
        shape = (self._starts[-1], *self.clip.size, 3)
        if (folder / FRAMES_FILE).stat().st_size != int(np.prod(shape)):
            raise ValueError(f"{FRAMES_FILE} does not have the size of {shape[0]} frames")
        self._frames = np.memmap(folder / FRAMES_FILE, np.uint8, "r", shape=shape)
        self._good: set[int] = set()

    def video(self, index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        frames = self._frames[self._starts[index] : self._starts[index + 1]]
        if index not in self._good:
            if zlib.crc32(frames.data) != self._sums[index]:
                raise DecodeError(self.folder / FRAMES_FILE, f"the frames of {self.ids[index]} are damaged")
            self._good.add(index)
        return frames


class CachedClips:
    """The evaluation clips of a dataset, decoded; a ``VideoDataset``."""

    def __init__(self, cache: _Frames) -> None:
        self.name, self.split, self.digest = cache.name, cache.split, cache.digest
        self.classes: Sequence[str] = cache.classes
        self.ids, self.labels = cache.ids, cache.labels
        self._cache = cache

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self.ids)

    def sample(self, index: int, clip: ClipSpec) -> Sample:
        """Return the clip of video ``index``.

        Raises:
            DataError: another clip is asked for than the one that is kept.
            DecodeError: the frames are damaged.
        """
        _refuse_other(self._cache, clip, self._cache.clip)
        return Sample(self.ids[index], torch.from_numpy(self._cache.video(index).copy()), self.labels[index])


class CachedVideos(IndexedVideos):
    """Whole decoded videos, to cut clips of one size from.

    Attributes:
        groups: as those of the videos they were made from.
    """

    def __init__(self, cache: _Frames) -> None:
        super().__init__(cache.name, cache.split, cache.classes, cache.ids, cache.labels)
        self.digest, self.groups = cache.digest, cache.groups
        self._cache = cache

    def frame_count(self, index: int) -> int:
        """Return the number of frames of video ``index``."""
        return self._cache.counts[index]

    def read(self, index: int, numbers: Sequence[int]) -> Tensor:
        """Return frames of video ``index`` by number, scaled and cropped already.

        Raises:
            DecodeError: the frames are damaged.
        """
        return torch.from_numpy(self._cache.video(index)[list(numbers)])

    def cut(self, index: int, numbers: Sequence[int], clip: ClipSpec) -> Tensor:
        """Return frames of video ``index`` by number.

        Raises:
            DataError: frames of another size are asked for than those that are kept.
            DecodeError: the frames are damaged.
        """
        kept = self._cache.clip
        _refuse_other(self._cache, clip, replace(clip, size=kept.size, short_side=kept.short_side, crops=1))
        return self.read(index, numbers)


def _decode_all(
    data: IndexedVideos, clip: ClipSpec, *, whole: bool, jobs: int | None
) -> Iterator[Tensor | DecodeError]:
    """Yield what to keep of each video in order, decoded in threads a few videos ahead."""

    def decode(index: int) -> Tensor | DecodeError:
        try:
            if not whole:
                return data.sample(index, clip).frames
            return data.cut(index, range(data.frame_count(index)), clip)
        except DecodeError as error:
            return error

    jobs = jobs or os.cpu_count() or 1
    with ThreadPoolExecutor(jobs) as pool:
        numbers = iter(range(len(data)))
        waiting = [pool.submit(decode, index) for index in islice(numbers, 2 * jobs)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(decode, index) for index in islice(numbers, 1)]


def _group(data: IndexedVideos, index: int) -> str:
    groups = getattr(data, "groups", None)
    return groups[index] if groups else ""


def _refuse_other(cache: _Frames, asked: ClipSpec, kept: ClipSpec) -> None:
    if asked != kept:
        raise DataError(f"the cache {cache.folder} keeps {kept}; {asked} is asked for: make a cache for this model")
