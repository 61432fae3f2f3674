"""From decoded frames to what a model sees, and back: resize, crop, clips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robustvid.contracts import ClipSpec, check_clips
from robustvid.data.sampling import crop_corner
from robustvid.errors import ClipError


def fit_frames(frames: Tensor, clip: ClipSpec) -> Tensor:
    """Return frames as a model takes them: scaled and cropped as ``clip`` says, one crop after the other.

    Args:
        frames: uint8 RGB, ``(T, H, W, 3)``.
        clip: size, shorter side and crops.

    Returns:
        uint8 RGB, ``(clip.crops * T, *clip.size, 3)``.

    Raises:
        ClipError: as :func:`resize_frames`.
    """
    places = (1,) if clip.crops == 1 else (0, 1, 2)
    crops = [resize_frames(frames, clip.size, clip.short_side, place) for place in places]
    return crops[0] if len(crops) == 1 else torch.cat(crops)


def resize_frames(frames: Tensor, size: tuple[int, int], short_side: int = 0, place: int = 1) -> Tensor:
    """Scale frames, keeping their proportions, and cut out the centre.

    Scaling is bilinear with antialiasing. Frames that have this size already are returned bit for bit.

    Args:
        frames: uint8 RGB, ``(T, H, W, 3)``.
        size: height and width wanted, in pixels.
        short_side: the frames' shorter side is scaled to this; 0, or too small, scales until they just cover ``size``.
        place: 1 for the centre; 0 or 2 for an end of the longer side.

    Returns:
        uint8 RGB, ``(T, *size, 3)``.

    Raises:
        ClipError: these are not such frames, or the size is not positive.
    """
    _check_frames(frames)
    if min(size) < 1:
        raise ClipError(f"size is {size}; wanted a height and a width of at least 1")
    height, width = frames.shape[1:3]
    scale = max(size[0] / height, size[1] / width, short_side / min(height, width))
    covering = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    if covering != (height, width):
        pixels = frames.permute(0, 3, 1, 2).float()
        pixels = F.interpolate(pixels, covering, mode="bilinear", antialias=True, align_corners=False)
        frames = _to_uint8(pixels).permute(0, 2, 3, 1)
    top, left = crop_corner(covering, size, place)
    return frames[:, top : top + size[0], left : left + size[1]].contiguous()


def to_clips(videos: Sequence[Tensor] | Tensor) -> Tensor:
    """Stack frames into clips.

    Args:
        videos: B tensors, uint8 RGB ``(T, H, W, 3)``, all of one shape; or one tensor ``(B, T, H, W, 3)``.

    Returns:
        float32 in [0, 1], ``(B, 3, T, H, W)``.

    Raises:
        ClipError: there are none, they are not such frames, or their shapes differ.
    """
    for frames in videos:
        _check_frames(frames)
    shapes = {tuple(frames.shape) for frames in videos}
    if len(shapes) != 1:
        raise ClipError(f"frames come in shapes {sorted(shapes)}; wanted one shape to make one batch of")
    stacked = videos if isinstance(videos, Tensor) else torch.stack(list(videos))
    return stacked.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def from_clips(clips: Tensor) -> Tensor:
    """Round clips to the 8 bits in which videos are stored; halves go up.

    Args:
        clips: float in [0, 1], ``(B, 3, T, H, W)``.

    Returns:
        uint8 RGB, ``(B, T, H, W, 3)``; exactly the frames that ``to_clips`` was given, if it made the clips.

    Raises:
        ClipError: these are not clips.
    """
    check_clips(clips)
    return _to_uint8(clips.detach().float() * 255).permute(0, 2, 3, 4, 1).contiguous()


def _to_uint8(pixels: Tensor) -> Tensor:
    return pixels.add(0.5).floor_().clamp_(0, 255).to(torch.uint8)


def _check_frames(frames: Tensor) -> None:
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or frames.numel() == 0:
        raise ClipError(f"frames are {frames.dtype} {tuple(frames.shape)}; wanted uint8 RGB (T, H, W, 3), not empty")
