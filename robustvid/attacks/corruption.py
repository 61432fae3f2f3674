"""Corruptions: what happens to videos without an enemy, at five severities."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from robustvid.budget import Budget
from robustvid.codec import through_h264
from robustvid.errors import CardError
from robustvid.registry import did_you_mean

SEVERITIES = 5


def corruption(
    _model: nn.Module,
    clips: Tensor,
    _labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    kind: str = "gaussian-noise",
    severity: int = 3,
) -> Tensor:
    """Corrupt clips in one of the ways of :data:`KINDS`; the model is not looked at.

    A corruption is as large as it is: ``Budget("linf", frame=1)`` allows any, and a clip whose corruption leaves the
    budget stays as it was. The random numbers of a clip are the same at every severity.

    Args:
        _model: not used.
        clips: ``(B, C, T, H, W)`` in [0, 1].
        _labels: not used.
        budget: what the perturbation x' - x may be.
        seeds: int64 ``(B,)``, for noise.
        kind: ``gaussian-noise``, ``shot-noise``, ``impulse-noise``, drawn for every value of every frame;
            ``brightness``, added to the largest of R, G and B; ``contrast``, towards the mean of the frame;
            ``defocus-blur``, a disc; ``motion-blur``, the mean of neighbouring frames; ``jpeg``, every frame;
            ``h264``, the frames of the clip as one video; ``freeze``, few frames are shown for longer.
        severity: 1 to 5.

    Returns:
        Clips of the same shape in [0, 1]. Costs nothing, neither forwards nor backwards.

    Raises:
        CardError: no such kind or severity.

    References:
        Hendrycks & Dietterich 2019, arXiv:1903.12261 (noise, blur and jpeg); Yi et al. 2021, arXiv:2110.06513 (shot
        noise, brightness, contrast, motion blur over time, H.264); Schiappa et al. 2023, arXiv:2207.01398 (freeze).
        Radii of ``defocus-blur`` are for a short side of 224 pixels and scale with it.
    """
    if kind not in KINDS:
        raise CardError(f"no corruption {kind!r}.{did_you_mean(kind, KINDS)} There are: {', '.join(KINDS)}.")
    if not 1 <= severity <= SEVERITIES:
        raise CardError(f"severity={severity}: corruptions have severities 1 to {SEVERITIES}")
    apply, levels = KINDS[kind]
    corrupted = [
        apply(clip, levels[severity - 1], _generator(seed)) for clip, seed in zip(clips, seeds.tolist(), strict=True)
    ]
    result = torch.stack(corrupted).to(clips).clamp(0, 1)
    fits = budget.size(result - clips) <= 1
    return torch.where(fits[:, None, None, None, None], result, clips)


def _gaussian_noise(clip: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    return clip + sigma * torch.randn(clip.shape, generator=generator).to(clip)


def _shot_noise(clip: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    return torch.poisson(clip.cpu().float() * photons, generator=generator) / photons


def _impulse_noise(clip: Tensor, share: float, generator: torch.Generator) -> Tensor:
    draw = torch.rand(clip.shape, generator=generator).to(clip)
    return torch.where(draw < share / 2, 0, torch.where(draw > 1 - share / 2, 1, clip))


def _brightness(clip: Tensor, more: float, _: torch.Generator) -> Tensor:
    value = clip.amax(0, keepdim=True)
    brighter = (value + more).clamp_max(1)
    return torch.where(value > 0, clip * brighter / value.clamp_min(1e-6), brighter)


def _contrast(clip: Tensor, share: float, _: torch.Generator) -> Tensor:
    mean = clip.mean((2, 3), keepdim=True)
    return mean + share * (clip - mean)


def _defocus_blur(clip: Tensor, radius: float, _: torch.Generator) -> Tensor:
    radius *= min(clip.shape[2:]) / 224
    reach = math.ceil(radius)
    line = torch.arange(-reach, reach + 1, dtype=clip.dtype, device=clip.device)
    disc = (radius + 0.5 - (line[:, None].square() + line.square()).sqrt()).clamp(0, 1)
    frames = clip.transpose(0, 1).flatten(0, 1)[:, None]
    blurred: Tensor = conv2d(pad(frames, [reach] * 4, mode="replicate"), (disc / disc.sum())[None, None])
    return blurred.reshape(clip.shape[1], clip.shape[0], *clip.shape[2:]).transpose(0, 1)


def _motion_blur(clip: Tensor, reach: float, _: torch.Generator) -> Tensor:
    frames = clip.shape[1]
    windows = [clip[:, max(0, t - int(reach)) : t + int(reach) + 1].mean(1) for t in range(frames)]
    return torch.stack(windows, 1)


def _jpeg(clip: Tensor, quality: float, _: torch.Generator) -> Tensor:
    import numpy as np
    from PIL import Image

    pixels = (clip * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()
    frames = []
    for frame in pixels:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=int(quality))
        frames.append(np.array(Image.open(file).convert("RGB")))
    return torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2) / 255


def _h264(clip: Tensor, crf: float, _: torch.Generator) -> Tensor:
    frames = (clip * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).cpu()
    return through_h264(frames, int(crf)).permute(3, 0, 1, 2) / 255


def _freeze(clip: Tensor, share: float, _: torch.Generator) -> Tensor:
    frames = clip.shape[1]
    kept = max(1, math.ceil(share * frames))
    shown = [math.floor(t * kept / frames) * frames // kept for t in range(frames)]
    return clip[:, shown]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


_Corruption = Callable[[Tensor, float, torch.Generator], Tensor]
KINDS: Mapping[str, tuple[_Corruption, tuple[float, ...]]] = MappingProxyType(
    {
        "gaussian-noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),  # standard deviation
        "shot-noise": (_shot_noise, (60, 25, 12, 5, 3)),  # photons of white
        "impulse-noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),  # share of values
        "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
        "contrast": (_contrast, (0.5, 0.4, 0.3, 0.2, 0.1)),  # share that is left
        "defocus-blur": (_defocus_blur, (3, 4, 6, 8, 10)),  # radius in pixels
        "motion-blur": (_motion_blur, (1, 2, 3, 4, 6)),  # neighbours on either side
        "jpeg": (_jpeg, (25, 18, 15, 10, 7)),  # quality
        "h264": (_h264, (23, 30, 37, 44, 51)),  # constant rate factor
        "freeze": (_freeze, (0.4, 0.2, 0.1, 0.05, 0.0)),  # share of the frames, at least one
    }
)
