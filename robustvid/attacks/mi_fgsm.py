"""MI-FGSM: iterated FGSM with momentum."""

from __future__ import annotations

from torch import Tensor, nn

from robustvid.attacks.directions import chain, momentum, unit
from robustvid.attacks.goal import Target, make_goal
from robustvid.attacks.gradient import Ascent, ascend
from robustvid.budget import Budget


def mi_fgsm(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 10,
    step_size: float = 0.1,
    decay: float = 1.0,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Climb along the accumulated, L1-normalised gradient, starting at the clip.

    m_{k+1} = μ·m_k + g_k / ‖g_k‖₁;  x_{k+1} = clamp(P_S(x_k + α·s(m_{k+1}))), g_k = ∇_x L(f(x_k), y).

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, used for a random target alone.
        steps: gradient steps K.
        step_size: α / ε; the paper's value is 1 / K.
        decay: μ.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most K + 1 forwards and K backwards a clip.

    References:
        Dong et al., "Boosting Adversarial Attacks with Momentum", arXiv:1710.06081.
    """
    ascent = Ascent(steps, step_size, chain(unit(), momentum(decay)), random_start=False)
    return ascend(model, clips, make_goal(model, clips, labels, seeds, loss, target), budget, seeds, ascent)
