"""Shuffled training batches, the same for the same seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustvid.contracts import ClipSpec, VideoDataset
from robustvid.data.decode import read_frames
from robustvid.data.folder import VideoFiles
from robustvid.data.sampling import random_clip_indices
from robustvid.data.transforms import resize_frames, to_clips
from robustvid.errors import DataError


class Videos(NamedTuple):
    """Whole decoded videos in memory: ``frames`` uint8 RGB ``(N, T, H, W, 3)``, ``labels`` int64 ``(N,)``."""

    frames: Tensor
    labels: Tensor


def load_videos(data: VideoFiles) -> Videos:
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
    source: Videos | VideoDataset, clip: ClipSpec, batch_size: int, seed: int, epoch: int, *, roll: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of training clips in random order, each cut at a random time.

    Everything follows from ``seed`` and ``epoch``; the batch size changes neither the clips nor their order.
    Clips of a dataset that offers nothing but ``sample`` are cut where ``sample`` cuts them.

    Args:
        source: decoded videos from ``load_videos``, or a dataset, whose videos are decoded when needed.
        clip: frames, stride and size of the clips.
        batch_size: clips per batch; the last batch may hold fewer.
        seed: number of the run.
        epoch: number of the epoch.
        roll: shift each clip by a random number of pixels around the edges, all its frames alike. Right where
            the world wraps around, as in motion10.

    Yields:
        Clips, float32 in [0, 1], ``(B, 3, T, H, W)``, and labels, int64 ``(B,)``.

    Raises:
        DataError: the batch size is not positive, or a video cannot be used.
    """
    if batch_size < 1:
        raise DataError(f"batches of {batch_size} clips; wanted at least 1")
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
    n = len(source.labels) if isinstance(source, Videos) else len(source)
    for batch in torch.randperm(n, generator=generator).split(batch_size):
        cut = [_random_clip(source, int(index), clip, generator, roll=roll) for index in batch]
        yield to_clips([frames for frames, _ in cut]), torch.tensor([label for _, label in cut])


def _whole(data: VideoFiles, index: int) -> Tensor:
    return read_frames(data.path(index), range(data.frame_count(index)))


def _random_clip(
    source: Videos | VideoDataset, index: int, clip: ClipSpec, generator: torch.Generator, *, roll: bool
) -> tuple[Tensor, int]:
    """Return frames ``(T, H, W, 3)`` of a randomly placed clip of one video, and its label."""
    if isinstance(source, Videos):
        video = source.frames[index]
        frames = resize_frames(video[random_clip_indices(len(video), clip, generator)], clip.size)
        label = int(source.labels[index])
    elif isinstance(source, VideoFiles):
        indices = random_clip_indices(source.frame_count(index), clip, generator)
        frames, label = resize_frames(read_frames(source.path(index), indices), clip.size), source.labels[index]
    else:
        _, frames, label = source.sample(index, clip)
    return (_rolled(frames, generator) if roll else frames), label


def _rolled(frames: Tensor, generator: torch.Generator) -> Tensor:
    down, right = (int(torch.randint(limit, (), generator=generator)) for limit in frames.shape[1:3])
    return frames.roll((down, right), dims=(1, 2))
