"""What an attack maximises: one value per clip, larger means closer to, or further beyond, a wrong answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from robustvid.errors import UnknownNameError
from robustvid.registry import did_you_mean

Loss = Callable[[Tensor, Tensor], Tensor]
TargetedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each clip, ``(B,)``."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return max_{k≠y} z_k - z_y of each clip, ``(B,)``: positive where the clip is misclassified.

    Carlini & Wagner, "Towards Evaluating the Robustness of Neural Networks", arXiv:1608.04644.
    """
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return others.amax(1) - _logit(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio of each clip, ``(B,)``: margin / (z_(1) - z_(3)).

    Unlike cross-entropy it does not change when all logits are shifted or scaled. With two classes there is no
    third logit, and the plain margin is returned.

    Croce & Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
    Attacks", arXiv:2003.01690.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2]).clamp_min(torch.finfo(logits.dtype).eps)


def targeted_cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    """Return log p_t of each clip, ``(B,)``: it rises with the probability of the target."""
    return -cross_entropy(logits, targets)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return z_t - z_y of each clip, ``(B,)``: the way towards one given class."""
    return _logit(logits, targets) - _logit(logits, labels)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2) of each clip, ``(B,)``.

    With fewer than four classes there is no fourth logit, and the plain targeted margin is returned.

    Croce & Hein, arXiv:2003.01690, section 4.2.
    """
    if logits.shape[1] < 4:
        return targeted_margin(logits, labels, targets)
    top = logits.topk(4, dim=1).values
    scale = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    return targeted_margin(logits, labels, targets) / scale.clamp_min(torch.finfo(logits.dtype).eps)


LOSSES: Mapping[str, Loss] = {"cross-entropy": cross_entropy, "margin": margin, "dlr": dlr}
TARGETED_LOSSES: Mapping[str, TargetedLoss] = {
    "cross-entropy": targeted_cross_entropy,
    "margin": targeted_margin,
    "dlr": targeted_dlr,
}


def check_loss(name: str) -> str:
    """Return ``name`` if there is such a loss.

    Raises:
        UnknownNameError: there is none; the message lists what there is.
    """
    if name not in LOSSES:
        raise UnknownNameError(f"no loss named {name!r}.{did_you_mean(name, LOSSES)} There are: {', '.join(LOSSES)}.")
    return name


def _logit(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)
