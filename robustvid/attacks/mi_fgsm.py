"""MI-FGSM: iterated FGSM with momentum."""

from __future__ import annotations

from torch import Tensor, nn

from robustvid.attacks.directions import chain, momentum, unit
from robustvid.attacks.gradient import Ascent, ascend
from robustvid.budget import Budget
from robustvid.losses import load_loss


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
) -> Tensor:
    """Climb along the accumulated, L1-normalised gradient, starting at the clip.

    m_{k+1} = μ·m_k + g_k / ‖g_k‖₁;  x_{k+1} = clamp(P_S(x_k + α·s(m_{k+1}))), g_k = ∇_x L(f(x_k), y).

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: unused, the attack has nothing random.
        steps: gradient steps K.
        step_size: α / ε; the paper's value is 1 / K.
        decay: μ.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.

    Returns:
        Adversarial clips, same shape. Costs at most K + 1 forwards and K backwards a clip.

    References:
        Dong et al., "Boosting Adversarial Attacks with Momentum", arXiv:1710.06081.
    """
    direction = chain(unit(), momentum(decay))
    return ascend(
        model,
        clips,
        labels,
        budget,
        seeds,
        Ascent(steps, step_size, load_loss(loss), direction, random_start=False),
    )
