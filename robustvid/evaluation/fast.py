"""The fastest way to attack a model on this machine: measured, and taken only where it answers the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustvid.models.fold import fold

PRECISIONS = ("fast", "exact", "bf16")
AGREEMENT = 1e-4  # largest difference of logits that counts as the same, relative to their spread
BF16_AGREEMENT = 0.02  # the same where they are computed in bfloat16
_LIKENESS = 0.5  # smallest cosine of the gradients of a clip: garbage has 0
AS_GIVEN, _FOLDED, _BF16 = "as given", "folded, channels last", "bfloat16"
_ROUNDS, _ENOUGH = 9, 2.0  # rounds, or seconds: a model that takes longer is measured well enough in one
_SLOWER = 1.25  # far enough from 1 that noise does not decide, and a run can be repeated bit for bit


class Answer(NamedTuple):
    """What a model made of clips.

    Attributes:
        logits: ``(B, K)``, float32.
        grad: of the distance between the two largest logits of each clip; None where there is no gradient.
        seconds: what a forward and a backward took.
    """

    logits: Tensor
    grad: Tensor | None
    seconds: float


class Choice(NamedTuple):
    """What to give attacks instead of a model, and why.

    Attributes:
        model: the model itself, or a faster twin of it.
        facts: the path's name, the twin's time as a share of the model's, and the largest difference of their logits.
        answer: what it made of the clips that decided.
    """

    model: nn.Module
    facts: dict[str, Any]
    answer: Answer


def ask(model: nn.Module, clips: Tensor) -> Answer:
    """Do once what attacks ask of a model: a forward, and a backward where it has a gradient.

    Args:
        model: on the device of the clips.
        clips: ``(B, 3, T, H, W)`` in [0, 1].
    """
    clock = stopwatch(clips.device)
    begin = clock()
    grad = None
    with torch.enable_grad():
        leaf = clips.clone().requires_grad_()
        logits = model(leaf).float()
        if logits.requires_grad:
            first, second = logits.topk(2).values.sum(0)
            (grad,) = torch.autograd.grad(first - second, leaf, allow_unused=True)
    return Answer(logits.detach(), grad, clock() - begin)


def fastest(model: nn.Module, clips: Tensor, given: Answer | None = None) -> Choice:
    """Return the folded twin of a model where it agrees on ``clips`` and is not slower here, else the model.

    Args:
        model: on its device, in evaluation mode.
        clips: ``(B, 3, T, H, W)`` in [0, 1], as many as go through the model at once.
        given: what the model makes of them, where it has been asked.
    """
    given = given or ask(model, clips)
    try:
        twin = fold(model)
        folded = ask(twin, clips)
    except Exception as error:  # noqa: BLE001  the model's own code, which may not expect what fold did
        return Choice(model, {"path": AS_GIVEN, "why": f"folded it fails: {error}"}, given)
    facts: dict[str, Any] = {"difference": _difference(given, folded)}
    if not facts["difference"] <= AGREEMENT:  # written so that NaN is refused too
        return Choice(model, {"path": AS_GIVEN, "why": "folded it answers otherwise"}, given)
    facts["time"] = round(_times_as_long(twin, folded, model, given, clips), 3)
    if facts["time"] > _SLOWER:
        return Choice(model, {"path": AS_GIVEN, "why": "folded it is slower"} | facts, given)
    return Choice(twin, {"path": _FOLDED} | facts, folded)


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
        answer = ask(lower, clips)
    except Exception as error:  # noqa: BLE001  operations without a bfloat16 form
        return choice._replace(facts=choice.facts | {"not_bf16": f"it fails: {error}"})
    if answer.grad is None or choice.answer.grad is None:
        return choice._replace(facts=choice.facts | {"not_bf16": "there is no gradient to climb"})
    difference = _difference(choice.answer, answer)
    likeness = float(nn.functional.cosine_similarity(choice.answer.grad.flatten(1), answer.grad.flatten(1)).min())
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
        facts["time"] = round(_times_as_long(lower, answer, choice.model, choice.answer, clips), 3)
        if facts["time"] > _SLOWER:
            why = f"it takes {facts['time']:g} times as long"
    return Choice(lower, facts, answer) if why is None else choice._replace(facts=choice.facts | {"not_bf16": why})


def _difference(one: Answer, other: Answer) -> float:
    """Return the largest difference of the logits of two models, relative to the spread of the first."""
    return float(((one.logits - other.logits).abs().amax(1) / spread(one.logits)).max())


def _times_as_long(model: nn.Module, own: Answer, other_model: nn.Module, other: Answer, clips: Tensor) -> float:
    """Ask both again and again, in turn, and return how many times as long the first takes, the median of the rounds.

    On a CPU what they took before is the first round; a GPU loads its kernels then, and it counts for nothing.
    """
    rounds = [(own.seconds, other.seconds)] if clips.device.type == "cpu" else []
    while len(rounds) < _ROUNDS and sum(map(sum, rounds)) < _ENOUGH:
        rounds.append((ask(model, clips).seconds, ask(other_model, clips).seconds))
    return median(mine / others for mine, others in rounds)


def spread(logits: Tensor) -> Tensor:
    """Return the distance between the largest and the smallest logit of each clip, ``(B,)``."""
    return (logits.amax(1) - logits.amin(1)).clamp_min(1e-12)


def stopwatch(device: torch.device) -> Callable[[], float]:
    """Return a clock that tells the CPU's own time, which other programs do not slow, or on a GPU when it is done."""

    def when_done() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return when_done if device.type == "cuda" else time.process_time
