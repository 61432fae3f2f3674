"""Which frames of a video make a clip, and which part of a frame: arithmetic, no pixels."""

from __future__ import annotations

import torch

from robustvid.contracts import ClipSpec
from robustvid.errors import DataError


def clip_indices(n: int, clip: ClipSpec) -> list[int]:
    """Return the frame numbers of the evaluation clip, always the same ones: ``clip.views`` views one after the other.

    A dense view is a window of ``(frames - 1) * stride + 1`` frames: one view lies in the middle, several lie evenly
    from the first possible place to the last. When the video is shorter than a window, the window starts at frame 0
    and the video is played in a loop: numbers wrap around at ``n``. A uniform view has one frame from each of
    ``frames`` equal parts of the video: one view takes the middle of each part, as TSN does (Wang et al., "Temporal
    Segment Networks", ECCV 2016), V views the middles of its V equal pieces; short videos repeat frames.

    Args:
        n: number of frames in the video, at least 1.
        clip: frames, stride, sampling and views.

    Returns:
        ``clip.views * clip.frames`` numbers in ``[0, n)``.

    Raises:
        DataError: the video has no frames, or the clip has no frames, no stride or no views.

    Example:
        >>> clip_indices(10, ClipSpec(frames=3, stride=2, size=(64, 64)))
        [2, 4, 6]
        >>> clip_indices(3, ClipSpec(frames=5, stride=1, size=(64, 64)))
        [0, 1, 2, 0, 1]
        >>> clip_indices(10, ClipSpec(frames=2, stride=1, size=(64, 64), views=3))
        [0, 1, 4, 5, 8, 9]
        >>> clip_indices(12, ClipSpec(frames=3, stride=1, size=(64, 64), sampling="uniform"))
        [2, 6, 10]
    """
    room = _room(n, clip)
    if clip.sampling == "uniform":
        return [
            int((step + (view + 0.5) / clip.views) * n / clip.frames)
            for view in range(clip.views)
            for step in range(clip.frames)
        ]
    if clip.views == 1:
        return _window(n, clip, max(0, room) // 2)
    starts = [max(0, room) * view // (clip.views - 1) for view in range(clip.views)]
    return [number for start in starts for number in _window(n, clip, start)]


def random_clip_indices(n: int, clip: ClipSpec, generator: torch.Generator) -> list[int]:
    """Return the frame numbers of a training clip: one view at a random place.

    A dense clip is a window at a uniformly random place; a video shorter than the window is played in a loop from a
    uniformly random frame. A uniform clip has a uniformly random frame from each of ``clip.frames`` equal parts.

    Args:
        n: number of frames in the video, at least 1.
        clip: frames, stride and sampling of the clip.
        generator: source of the random numbers: one for a dense clip, one for each frame of a uniform one.

    Returns:
        ``clip.frames`` numbers in ``[0, n)``.

    Raises:
        DataError: the video has no frames, or the clip has no frames or no stride.
    """
    room = _room(n, clip)
    if clip.sampling == "uniform":
        within = torch.rand(clip.frames, generator=generator, dtype=torch.float64).tolist()
        return [int((step + part) * n / clip.frames) for step, part in enumerate(within)]
    starts = room + 1 if room >= 0 else n
    return _window(n, clip, int(torch.randint(starts, (), generator=generator)))


def crop_corner(frame: tuple[int, int], size: tuple[int, int], place: int = 1) -> tuple[int, int]:
    """Return the top left corner of a crop: centred, or at an end of the axis along which the frame is longer.

    Args:
        frame: height and width of the frame.
        size: height and width of the crop; neither is larger.
        place: 0 for the first, 1 for the middle, 2 for the last of three crops.
    """
    spare = [whole - part for whole, part in zip(frame, size, strict=True)]
    along = 0 if spare[0] > spare[1] else 1
    corner = [room // 2 for room in spare]
    corner[along] = (0, spare[along] // 2, spare[along])[place]
    return corner[0], corner[1]


def _room(n: int, clip: ClipSpec) -> int:
    if n < 1:
        raise DataError(f"the video has {n} frames; a clip needs at least one")
    if min(clip.frames, clip.stride, clip.views) < 1:
        raise DataError(
            f"a clip of {clip.frames} frames with stride {clip.stride} in {clip.views} views; all must be at least 1"
        )
    return n - ((clip.frames - 1) * clip.stride + 1)


def _window(n: int, clip: ClipSpec, start: int) -> list[int]:
    return [(start + step * clip.stride) % n for step in range(clip.frames)]
