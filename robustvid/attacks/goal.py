"""What an attack wants of each clip: to leave the label, or to reach a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from robustvid.errors import CardError
from robustvid.losses import LOSSES, TARGETED_LOSSES, check_loss, margin

Target = int | str | None
TARGETS = ("next", "least-likely", "random")


class Climbed(Protocol):
    """What a gradient is taken of."""

    def value(self, logits: Tensor) -> Tensor:
        """Return one value for each clip, ``(B,)``."""
        ...

    def select(self, index: Tensor) -> Climbed:
        """Return the same for some clips of the batch."""
        ...


@dataclass(frozen=True)
class Goal:
    """What is climbed, and when a clip is done.

    Attributes:
        labels: int64 ``(B,)``, the true classes.
        loss: name in :data:`robustvid.losses.LOSSES`.
        targets: int64 ``(B,)``, the class that the loss pulls each clip towards; None for any wrong class.
        reach: a clip is done only when its target is predicted, rather than as soon as its label is not.
    """

    labels: Tensor
    loss: str = "cross-entropy"
    targets: Tensor | None = None
    reach: bool = False

    def __post_init__(self) -> None:
        """Refuse a loss that does not exist."""
        check_loss(self.loss)

    def value(self, logits: Tensor) -> Tensor:
        """Return what is maximised, ``(B,)``, differentiable."""
        if self.targets is None:
            return LOSSES[self.loss](logits, self.labels)
        return TARGETED_LOSSES[self.loss](logits, self.labels, self.targets)

    def gap(self, logits: Tensor) -> Tensor:
        """Return how far beyond the decision each clip is, ``(B,)``: what ranks two iterates of a clip."""
        return -margin(logits, self.targets) if self.reach and self.targets is not None else margin(logits, self.labels)

    def met(self, logits: Tensor) -> Tensor:
        """Return whether each clip is done, bool ``(B,)``."""
        predicted = logits.argmax(1)
        if self.reach and self.targets is not None:
            return predicted == self.targets
        return predicted != self.labels

    def select(self, index: Tensor) -> Goal:
        """Return the goal of some clips of the batch."""
        targets = None if self.targets is None else self.targets[index]
        return replace(self, labels=self.labels[index], targets=targets)


def make_goal(  # noqa: PLR0917  the inputs of every attack, then what is wanted
    model: Callable[[Tensor], Tensor],
    clips: Tensor,
    labels: Tensor,
    seeds: Tensor,
    loss: str,
    target: Target = None,
) -> Goal:
    """Return the goal of an attack: untargeted without ``target``, else to have that class predicted.

    Args:
        model: asked once, for the classes, when there is a target.
        clips: ``(B, C, T, H, W)``.
        labels: int64 ``(B,)``.
        seeds: int64 ``(B,)``, for the target ``"random"``.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: None; a class number; ``"next"``, the class after the label; ``"least-likely"``, by the logits of the
            clean clip; or ``"random"``, any class but the label. A clip whose label is the target is left as it is.

    Raises:
        CardError: there is no such target.
        UnknownNameError: there is no such loss.
    """
    if target is None:
        return Goal(labels, loss)
    with torch.no_grad():
        logits = model(clips)
    return Goal(labels, loss, _targets(logits, labels, seeds, target), reach=True)


def _targets(logits: Tensor, labels: Tensor, seeds: Tensor, target: int | str) -> Tensor:
    classes = logits.shape[1]
    if target == "next":
        return (labels + 1) % classes
    if target == "least-likely":
        return logits.scatter(1, labels[:, None], torch.inf).argmin(1)
    if target == "random":
        offsets = [int(torch.randint(1, classes, (), generator=_generator(seed))) for seed in seeds.tolist()]
        return (labels + torch.tensor(offsets, device=labels.device)) % classes
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < classes:
        return torch.full_like(labels, target)
    raise CardError(f"target={target!r}: give a class from 0 to {classes - 1}, or one of {', '.join(TARGETS)}")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed ^ 0x5DEECE66D) % 2**63)
