"""What an attack maximises: one value per clip, larger means closer to, or further beyond, a wrong answer."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustvid.errors import UnknownNameError
from robustvid.registry import did_you_mean

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each clip, ``(B,)``."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return max_{k≠y} z_k - z_y of each clip, ``(B,)``: positive where the clip is misclassified.

    Carlini & Wagner, "Towards Evaluating the Robustness of Neural Networks", arXiv:1608.04644.
    """
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return others.amax(1) - true


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


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "margin": margin, "dlr": dlr}


def load_loss(name: str) -> Loss:
    """Return the loss of this name.

    Raises:
        UnknownNameError: there is no such loss; the message lists what there is.
    """
    if name not in LOSSES:
        raise UnknownNameError(f"no loss named {name!r}.{did_you_mean(name, LOSSES)} There are: {', '.join(LOSSES)}.")
    return LOSSES[name]
