"""The fastest way to attack a model on this machine: measured, and taken only where it answers the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustvid.models.fold import fold

PRECISIONS = ("fast", "exact", "bf16")
AGREEMENT = 1e-4  # largest difference of logits that counts as the same, relative to their spread
BF16_AGREEMENT = 0.02  # the same where they are computed in bfloat16
_LIKENESS = 0.5  # smallest cosine of the gradients of a clip: garbage has 0
_AS_GIVEN, _FOLDED, _BF16 = "as given", "folded, channels last", "bfloat16"
_ROUNDS, _ENOUGH = 3, 2.0  # rounds, or seconds: a model that takes longer is measured well enough in one
_SLOWER = 1.25  # far enough from 1 that noise does not decide, and a run can be repeated bit for bit


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
    facts["time"] = _relative_time(twin, model, clips)
    if facts["time"] > _SLOWER:
        return Choice(model, {"path": _AS_GIVEN, "why": "folded it is slower"} | facts)
    return Choice(twin, {"path": _FOLDED} | facts)


class Bf16(nn.Module):
    """A model under autocast to bfloat16: clips, weights and logits are float32, convolutions and products are not."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.card = getattr(model, "card", None)

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)`` in float32."""
        with torch.autocast(clips.device.type, torch.bfloat16):
            logits: Tensor = self.model(clips)
        return logits.float()


def in_bf16(choice: Choice, clips: Tensor) -> Choice:
    """Return the model of a choice in bfloat16 where it and its gradient agree on ``clips`` and it is not slower here.

    Args:
        choice: of :func:`fastest`.
        clips: ``(B, 3, T, H, W)`` in [0, 1], as many as go through the model at once.
    """
    lower, path = Bf16(choice.model), choice.facts["path"]
    try:
        (logits, grad), (again, lower_grad) = (_logits_and_gradient(model, clips) for model in (choice.model, lower))
    except Exception as error:  # noqa: BLE001  operations without a bfloat16 form, or without a gradient
        return choice._replace(facts=choice.facts | {"not_bf16": f"it fails: {error}"})
    difference = float(((logits - again).abs().amax(1) / spread(logits)).max())
    likeness = float(nn.functional.cosine_similarity(grad.flatten(1), lower_grad.flatten(1)).min())
    facts: dict[str, Any] = {
        "path": f"{path}, {_BF16}",
        "difference": difference,
        "gradient_cosine": round(likeness, 3),
    }
    why = None
    if not difference <= BF16_AGREEMENT:  # written so that NaN is refused too
        why = f"it answers otherwise, by {difference:.3g} of the spread"
    elif not likeness >= _LIKENESS:
        why = f"its gradient is another, with a cosine of {likeness:.2f}"
    else:
        facts["time"] = _relative_time(lower, choice.model, clips)
        if facts["time"] > _SLOWER:
            why = f"it takes {facts['time']:g} times as long"
    return Choice(lower, facts) if why is None else choice._replace(facts=choice.facts | {"not_bf16": why})


def _logits_and_gradient(model: nn.Module, clips: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits, and the gradient of the distance between the first two of each clip."""
    leaf = clips.clone().requires_grad_()
    with torch.enable_grad():
        logits: Tensor = model(leaf)
        first, second = logits.topk(2).values.sum(0)
        (grad,) = torch.autograd.grad(first - second, leaf)
    return logits.detach(), grad


def _relative_time(model: nn.Module, other: nn.Module, clips: Tensor) -> float:
    """Return what a forward and a backward take, as a multiple of those of another model."""
    own: list[float] = []
    others: list[float] = []
    while len(own) < _ROUNDS and sum(own + others) < _ENOUGH:
        own.append(seconds_of(model, clips))
        others.append(seconds_of(other, clips))
    return round(min(own) / min(others), 3)


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
