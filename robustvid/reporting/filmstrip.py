"""Filmstrips: an attacked clip as rows of frames, clean, adversarial, and what was added."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from robustvid.evaluation.evidence import Evidence, as_float
from robustvid.evaluation.results import Results

_SHOWN = 5


def telling_clip(results: Results, threat: str) -> Evidence | None:
    """Return the first kept clip that was broken under a threat, or the first at all; None where none is kept."""
    kept = [evidence for evidence in results.clips() if evidence.threat == threat]
    return next((evidence for evidence in kept if not evidence.row["robust"]), kept[0] if kept else None)


def amplification(delta: Tensor) -> int:
    """Return the power of two, 1 to 128, that brings a perturbation's root mean square to about a quarter."""
    rms = float(delta.square().mean().sqrt())
    return 2 ** min(7, max(0, int(math.log2(0.25 / rms)))) if rms > 0 else 1


def budget_text(row: dict[str, Any]) -> str:
    """Return the budget of a measurement in words."""
    parts = [f"{name} {row[key]}" for name, key in (("frame", "eps_frame"), ("clip", "eps_clip")) if row[key]]
    limit = [f"{row['frames']} frames"] if row["frames"] else []
    return f"{row['norm']} {' '.join(parts)}" + "".join(f", {text}" for text in limit)


def draw_filmstrip(figure: Any, evidence: Evidence, classes: list[str]) -> None:
    """Draw an attacked clip into a matplotlib figure: three rows of frames.

    Args:
        figure: a figure or subfigure.
        evidence: the clip.
        classes: names of the classes.
    """
    clean, row = as_float(evidence.clean), evidence.row
    delta = evidence.adversarial - clean
    factor = amplification(delta)
    strips = [
        (clean, f"clean: “{classes[row['clean']]}”"),
        (evidence.adversarial, f"{row['attack']}, {budget_text(row)}: “{classes[row['predicted']]}”"),
        ((0.5 + factor * delta).clamp(0, 1), f"difference, amplified {factor} times"),
    ]
    for axes, (clip, title) in zip(figure.subplots(len(strips)), strips, strict=True):
        axes.imshow(_strip(clip), interpolation="nearest")
        axes.set_title(title, loc="left", fontsize="medium", parse_math=False)
        axes.set_axis_off()


def _strip(clip: Tensor) -> Any:
    """Return a few frames ``(C, T, H, W)`` side by side, with gaps, as ``(H, W, 4)``."""
    frames = clip.shape[1]
    chosen = np.linspace(0, frames - 1, min(_SHOWN, frames)).round().astype(int)
    pixels = clip[:, chosen].permute(1, 2, 3, 0).numpy()
    opaque = np.pad(pixels, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1)
    gap = max(1, clip.shape[3] // 16)
    return np.concatenate(list(np.pad(opaque, ((0, 0), (0, 0), (0, gap), (0, 0)))), axis=1)[:, :-gap]
