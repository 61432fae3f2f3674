"""The fastest way to attack a model on this machine: measured, and taken only where it answers the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustvid.models.fold import fold

PRECISIONS = ("fast", "exact")
AGREEMENT = 1e-4  # largest difference of logits that counts as the same, relative to their spread
_AS_GIVEN, _FOLDED = "as given", "folded, channels last"
_ROUNDS, _SLOWER = 3, 1.25  # far enough from 1 that noise does not decide, and a run can be repeated bit for bit


class Choice(NamedTuple):
    """What to give attacks instead of a model, and why.

    Attributes:
        model: the model itself, or a faster twin of it.
        facts: the path's name, the twin's time as a share of the model's, and the largest difference of their logits.
    """

    model: nn.Module
    facts: dict[str, Any]


def fastest(model: nn.Module, clips: Tensor) -> Choice:
    """Return the folded twin of a model where it agrees on ``clips`` and is not slower here, else the model.

    Args:
        model: on its device, in evaluation mode.
        clips: ``(B, 3, T, H, W)`` in [0, 1], as many as go through the model at once.
    """
    with torch.no_grad():
        logits = model(clips).float()
    try:
        twin = fold(model)
        with torch.no_grad():
            again = twin(clips).float()
    except Exception as error:  # noqa: BLE001  the model's own code, which may not expect what fold did
        return Choice(model, {"path": _AS_GIVEN, "why": f"folded it fails: {error}"})
    facts: dict[str, Any] = {"difference": float(((logits - again).abs().amax(1) / spread(logits)).max())}
    if not facts["difference"] <= AGREEMENT:  # written so that NaN is refused too
        return Choice(model, {"path": _AS_GIVEN, "why": "folded it answers otherwise"})
    seconds = zip(*((seconds_of(twin, clips), seconds_of(model, clips)) for _ in range(_ROUNDS)), strict=True)
    own, given = (min(times) for times in seconds)
    facts["time"] = round(own / given, 3)
    if facts["time"] > _SLOWER:
        return Choice(model, {"path": _AS_GIVEN, "why": "folded it is slower"} | facts)
    return Choice(twin, {"path": _FOLDED} | facts)


def spread(logits: Tensor) -> Tensor:
    """Return the distance between the largest and the smallest logit of each clip, ``(B,)``."""
    return (logits.amax(1) - logits.amin(1)).clamp_min(1e-12)


def seconds_of(model: nn.Module, clips: Tensor, *, backward: bool = True) -> float:
    """Return the seconds of a forward, and of a backward where there is a gradient: of the CPU's own time on a CPU."""
    clock = stopwatch(clips.device)
    begin = clock()
    with torch.set_grad_enabled(backward):
        leaf = clips.clone().requires_grad_(backward)
        logits: Tensor = model(leaf)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    return clock() - begin


def stopwatch(device: torch.device) -> Callable[[], float]:
    """Return a clock that tells the CPU's own time, which other programs do not slow, or on a GPU when it is done."""

    def when_done() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return when_done if device.type == "cuda" else time.process_time
