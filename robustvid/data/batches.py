"""Shuffled training batches, the same for the same seed and epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from robustvid.contracts import ClipSpec, VideoDataset
from robustvid.data.sampling import random_clip_indices
from robustvid.data.transforms import fit_frames, to_clips
from robustvid.data.videos import IndexedVideos
from robustvid.errors import DataError, DecodeError

Item = TypeVar("Item")
_MOST_THREADS = 8  # that decode one batch


class Videos(NamedTuple):
    """Whole decoded videos in memory: ``frames`` uint8 RGB ``(N, T, H, W, 3)``, ``labels`` int64 ``(N,)``."""

    frames: Tensor
    labels: Tensor


def load_videos(data: IndexedVideos) -> Videos:
    """Decode every video of a small dataset once, so that epochs need no decoding.

    motion10's training split takes 354 MB.

    Args:
        data: videos that all have the same number of frames and the same size.

    Raises:
        DataError: the videos differ in length or size; train from ``data`` itself then.
        DecodeError: a video cannot be read.
    """
    first = _whole(data, 0)
    frames = first.new_empty((len(data), *first.shape))
    for index in range(len(data)):
        video = _whole(data, index)
        if video.shape != first.shape:
            raise DataError(
                f"{data.ids[index]} is {tuple(video.shape)} and {data.ids[0]} is {tuple(first.shape)}: "
                "only videos of one length and size fit one array; give the dataset itself to training_batches"
            )
        frames[index] = video
    return Videos(frames, torch.tensor(data.labels))


def training_batches(
    source: Videos | VideoDataset,
    clip: ClipSpec,
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    roll: bool = False,
    among: Sequence[int] | None = None,
    skip: int = 0,
    share: tuple[int, int] = (0, 1),
    left_out: Callable[[DecodeError], None] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of training clips in random order, each cut at a random time.

    Everything follows from ``seed`` and ``epoch``; the batch size changes neither the clips nor their order.
    Clips of a dataset that offers nothing but ``sample`` are cut where ``sample`` cuts them. The videos of a batch are
    decoded in several threads where they are :class:`IndexedVideos`; datasets of others need not bear that.

    Args:
        source: decoded videos from ``load_videos``, or a dataset, whose videos are decoded when needed.
        clip: frames, stride and size of the clips.
        batch_size: clips per batch; the last batch may hold fewer.
        seed: number of the run.
        epoch: number of the epoch.
        roll: shift each clip by a random number of pixels around the edges, all its frames alike. Right where
            the world wraps around, as in motion10.
        among: numbers of the videos to take; all when None.
        skip: leave out so many batches at the beginning, without decoding them; the others stay as they were.
        share: (rank, ranks): only every so-manieth clip of each batch, the same number for every rank; clips that
            cannot be shared out evenly are left out.
        left_out: told of every video that cannot be read, from any thread, each time it is met; the next one in the
            epoch's order that can takes its place, so that batches keep their sizes.

    Yields:
        Clips, float32 in [0, 1], ``(B, 3, T, H, W)``, and labels, int64 ``(B,)``.

    Raises:
        DataError: the batch size is not positive, or a video cannot be used.
        DecodeError: a video cannot be read and ``left_out`` is None, or none can.
    """
    if batch_size < 1:
        raise DataError(f"batches of {batch_size} clips; wanted at least 1")
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
    n = len(source.labels) if isinstance(source, Videos) else len(source)
    numbers = torch.arange(n) if among is None else torch.tensor(among)
    order = numbers[torch.randperm(len(numbers), generator=generator)].tolist()
    rank, ranks = share

    def read(place: int, cut: _Cut) -> tuple[Tensor, int]:
        try:
            return _cut(source, cut, clip)
        except DecodeError as error:
            if left_out is None:
                raise
            left_out(error)
            for index in [*order[place + 1 :], *order[:place]]:
                try:
                    return _cut(source, cut._replace(video=index, frames=None), clip)
                except DecodeError as another:
                    left_out(another)
            raise

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        run = pool.map if isinstance(source, IndexedVideos) else map
        for batch, start in enumerate(range(0, len(order), batch_size)):
            places = range(start, min(start + batch_size, len(order)))
            cuts = [_draw(source, order[place], clip, generator, roll=roll) for place in places]
            mine = slice(rank, len(cuts) // ranks * ranks, ranks)
            if batch >= skip and cuts[mine]:
                frames, labels = zip(*run(read, places[mine], cuts[mine]), strict=True)
                yield to_clips(frames), torch.tensor(labels)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the same, made one ahead in a thread of its own: videos are decoded while the batch before is learnt."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, items, None)
            yield item


class _Cut(NamedTuple):
    """Where a clip is taken from: video, frames (None where the dataset decides), and a shift around the edges."""

    video: int
    frames: list[int] | None
    shift: tuple[int, int] | None


def _whole(data: IndexedVideos, index: int) -> Tensor:
    return data.read(index, range(data.frame_count(index)))


def _draw(source: Videos | VideoDataset, index: int, clip: ClipSpec, generator: torch.Generator, *, roll: bool) -> _Cut:
    """Draw the place of a clip in one video; decodes nothing, so that what is wrong with a video shows on reading."""
    frames = shift = None
    if isinstance(source, Videos):
        frames = random_clip_indices(source.frames.shape[1], clip, generator)
    elif isinstance(source, IndexedVideos):
        with suppress(DecodeError):
            frames = random_clip_indices(source.frame_count(index), clip, generator)
    if roll:
        down, right = (int(torch.randint(limit, (), generator=generator)) for limit in clip.size)
        shift = down, right
    return _Cut(index, frames, shift)


def _cut(source: Videos | VideoDataset, cut: _Cut, clip: ClipSpec) -> tuple[Tensor, int]:
    """Return the frames ``(T, H, W, 3)`` of one clip, and its label."""
    if isinstance(source, Videos):
        frames = fit_frames(source.frames[cut.video][cut.frames], clip)
        label = int(source.labels[cut.video])
    elif isinstance(source, IndexedVideos) and cut.frames is not None:
        frames = source.cut(cut.video, cut.frames, clip)
        label = source.labels[cut.video]
    else:
        _, frames, label = source.sample(cut.video, clip)
    return (frames if cut.shift is None else frames.roll(cut.shift, dims=(1, 2))), label


def evaluation_batches(
    data: VideoDataset, clip: ClipSpec, limit: int | None = None, batch_size: int = 50
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the evaluation clips ``(B, 3, T, H, W)`` of a dataset in its order, and their labels ``(B,)``.

    Args:
        data: labelled videos.
        clip: how clips are cut.
        limit: only the first so many videos; all when None.
        batch_size: clips at a time.

    Raises:
        DecodeError: a video cannot be read.
    """
    for numbers in torch.arange(len(data))[:limit].split(batch_size):
        samples = [data.sample(int(number), clip) for number in numbers]
        yield to_clips([sample.frames for sample in samples]), torch.tensor([sample.label for sample in samples])
