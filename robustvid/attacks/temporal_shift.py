"""Temporal translation: gradients averaged over shifts in time, for models that sample frames differently."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from robustvid.attacks.directions import Direction, Memory, chain, momentum, unit
from robustvid.attacks.goal import Target, make_goal
from robustvid.attacks.gradient import Ascent, Look, ascend
from robustvid.attacks.transfer import gradient_through
from robustvid.budget import Budget
from robustvid.errors import CardError

_TIME = 2


def temporal_shift(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 10,
    step_size: float = 0.1,
    decay: float = 1.0,
    shifts: int | None = None,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Average each gradient over the clip rolled in time, so that it depends less on which frames the model favours.

    g_k = Σ_{s=-L..L} w_s · roll(∇L(f(roll(x_k, s))), -s), w Gaussian with σ = L / 3 and Σ w = 1, roll cyclic in time;
    m_{k+1} = μ·m_k + g_k / mean|g_k|, the mean taken for each frame as in the authors' code, and over the clip where
    the budget bounds the clip as a whole, whose share for each frame is the gradient's to choose;
    x_{k+1} = clamp(P_S(x_k + α·s(m_{k+1}))). Shifts that coincide on a short clip are run once, their weights added.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be; the paper has linf alone.
        seeds: int64 ``(B,)``, used for a random target alone.
        steps: gradient steps K.
        step_size: α / ε; the paper's value is 1 / K.
        decay: μ.
        shifts: L, in frames of the clip; with 0 this is MI-FGSM but for the mean. By default the paper's share of the
            clip, 7 of 32 frames, and at least 1.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most n·K + 1 forwards and n·K backwards a clip, n = min(2L + 1, T).

    Raises:
        CardError: ``shifts`` below 0.

    References:
        Wei et al., "Boosting the Transferability of Video Adversarial Examples via Temporal Translation",
        arXiv:2110.09075.
    """
    frames = clips.shape[_TIME]
    weights = shift_weights(max(1, round(7 / 32 * frames)) if shifts is None else shifts, frames)

    def refine(model: nn.Module, look: Look) -> tuple[Tensor, Memory]:
        grad = weights[0] * look.grad
        for shift, weight in weights.items():
            if shift:
                grad = grad + weight * gradient_through(model, look, partial(torch.roll, shifts=shift, dims=_TIME))
        return grad, ()

    scale = frame_unit() if budget.clip is None else unit()
    ascent = Ascent(steps, step_size, chain(scale, momentum(decay)), random_start=False, refine=refine)
    return ascend(model, clips, make_goal(model, clips, labels, seeds, loss, target), budget, seeds, ascent)


def shift_weights(shifts: int, frames: int) -> dict[int, float]:
    """Return the weight of each cyclic shift from 0 to ``frames`` - 1 that is used; they sum to 1.

    Raises:
        CardError: ``shifts`` below 0.
    """
    if shifts < 0:
        raise CardError(f"shifts={shifts}: give 0 or more frames")
    weights: dict[int, float] = {0: 1.0}
    for shift in range(1, shifts + 1):
        for way in (shift, -shift):
            weights[way % frames] = weights.get(way % frames, 0.0) + math.exp(-0.5 * (3 * shift / shifts) ** 2)
    total = sum(weights.values())
    return {shift: weight / total for shift, weight in weights.items()}


def frame_unit() -> Direction:
    """Divide each frame's gradient by its mean absolute value."""

    def update(grad: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        scale = grad.abs().mean((1, 3, 4), keepdim=True)
        return grad / scale.clamp_min(torch.finfo(grad.dtype).tiny), memory

    return Direction(lambda _: (), update)
