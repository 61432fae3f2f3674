"""Which frames of a video make a clip: arithmetic on frame numbers, no pixels."""

from __future__ import annotations

import torch

from robustvid.contracts import ClipSpec
from robustvid.errors import DataError


def centre_clip_indices(n: int, clip: ClipSpec) -> list[int]:
    """Return the frame numbers of the evaluation clip: the centred window, always the same one.

    The window spans ``(frames - 1) * stride + 1`` frames of the video. When the video is shorter than that,
    the window starts at frame 0 and the video is played in a loop: numbers wrap around at ``n``.

    Args:
        n: number of frames in the video, at least 1.
        clip: frames and stride of the clip.

    Returns:
        ``clip.frames`` numbers in ``[0, n)``.

    Raises:
        DataError: the video has no frames, or the clip has no frames or no stride.

    Example:
        >>> centre_clip_indices(10, ClipSpec(frames=3, stride=2, size=(64, 64)))
        [2, 4, 6]
        >>> centre_clip_indices(3, ClipSpec(frames=5, stride=1, size=(64, 64)))
        [0, 1, 2, 0, 1]
    """
    return _window(n, clip, max(0, _room(n, clip)) // 2)


def random_clip_indices(n: int, clip: ClipSpec, generator: torch.Generator) -> list[int]:
    """Return the frame numbers of a training clip: a window at a uniformly random place.

    A video shorter than the window is played in a loop from a uniformly random frame.

    Args:
        n: number of frames in the video, at least 1.
        clip: frames and stride of the clip.
        generator: source of the one random number drawn.

    Returns:
        ``clip.frames`` numbers in ``[0, n)``.

    Raises:
        DataError: the video has no frames, or the clip has no frames or no stride.
    """
    room = _room(n, clip)
    starts = room + 1 if room >= 0 else n
    return _window(n, clip, int(torch.randint(starts, (), generator=generator)))


def _room(n: int, clip: ClipSpec) -> int:
    if n < 1:
        raise DataError(f"the video has {n} frames; a clip needs at least one")
    if clip.frames < 1 or clip.stride < 1:
        raise DataError(f"a clip of {clip.frames} frames with stride {clip.stride}; both must be at least 1")
    return n - ((clip.frames - 1) * clip.stride + 1)


def _window(n: int, clip: ClipSpec, start: int) -> list[int]:
    return [(start + step * clip.stride) % n for step in range(clip.frames)]
