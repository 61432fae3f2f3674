"""FGSM: one step as long as the budget."""

from __future__ import annotations

from torch import Tensor, nn

from robustvid.attacks.goal import Target, make_goal
from robustvid.attacks.gradient import loss_gradient
from robustvid.budget import Budget


def fgsm(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Take one step to the steepest point of the budget.

    x' = clamp(x + argmax_{δ ∈ S} ⟨∇_x L(f(x), y), δ⟩). For linf that is ε·sign(∇L); for any other budget it is the
    budget's own steepest point, exact for a linear classifier.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, used for a random target alone.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs 1 forward and 1 backward a clip.

    References:
        Goodfellow, Shlens & Szegedy, "Explaining and Harnessing Adversarial Examples", arXiv:1412.6572.
    """
    grad, _ = loss_gradient(model, clips, make_goal(model, clips, labels, seeds, loss, target))
    return (clips + budget.project(budget.steepest(grad))).clamp(0, 1)
