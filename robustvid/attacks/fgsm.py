"""FGSM: one step as long as the budget."""

from __future__ import annotations

from torch import Tensor, nn

from robustvid.attacks.gradient import loss_gradient
from robustvid.budget import Budget
from robustvid.losses import load_loss


def fgsm(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,  # noqa: ARG001  the contract of every attack; FGSM has nothing random
    *,
    loss: str = "cross-entropy",
) -> Tensor:
    """Take one step to the steepest point of the budget.

    x' = clamp(x + argmax_{δ ∈ S} ⟨∇_x L(f(x), y), δ⟩). For linf that is ε·sign(∇L); for any other budget it is the
    budget's own steepest point, exact for a linear classifier.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: unused.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.

    Returns:
        Adversarial clips, same shape. Costs 1 forward and 1 backward a clip.

    References:
        Goodfellow, Shlens & Szegedy, "Explaining and Harnessing Adversarial Examples", arXiv:1412.6572.
    """
    grad, _ = loss_gradient(model, clips, labels, load_loss(loss))
    return (clips + budget.project(budget.steepest(grad))).clamp(0, 1)
