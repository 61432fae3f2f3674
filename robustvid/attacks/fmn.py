"""FMN: the smallest perturbation, by steps in a ball whose radius follows the boundary."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from robustvid.attacks.goal import Target, make_goal
from robustvid.attacks.gradient import Problem, check_counts
from robustvid.attacks.minimum import (
    Smallest,
    boundary,
    cosine,
    distance,
    farthest,
    free_gradient,
    minimise,
    step_in_ball,
)
from robustvid.budget import Budget

_STEPS = (1.0, 0.01)  # α_0 and α_K, in units of ε_k
_CHANGES = (0.05, 0.001)  # γ_0 and γ_K


def fmn(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 100,
    target: Target = None,
) -> Tensor:
    """Look for the smallest perturbation; return it where the budget allows it, else the best iterate that fits.

    With L = max_{j≠y} z_j - z_y and δ_0 = 0: ε_k = (1 + γ_k)(‖δ_k‖ + |L| / ‖∇L‖_dual) until a δ_k is adversarial; from
    then on ε_k = min((1 - γ_k) ε_{k-1}, ‖δ*‖) where δ_k is adversarial, δ* the smallest such, and (1 + γ_k) ε_{k-1}
    where it is not. δ_{k+1} = clamp(Π_{ε_k}(δ_k + α_k ε_k s(∇L))), α_k and γ_k falling from 1 to 0.01 and from 0.05 to
    0.001 on a cosine. The norm is the budget's, whose radius only decides what is returned: linf, l2 by frame, l2 by
    clip, or for both together the larger of the two ratios to their radii. So one run serves every larger radius.

    Deviations from the paper: a step follows s, the steepest direction in the norm, and is α_k ε_k long, where the
    paper's goes along ∇L / ‖∇L‖_2 and is α_k long, which depends on the number of pixels; the first radii are larger by
    1 + γ_k, as else iterates can creep up to the boundary for ever; the norm of the largest frame is new.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: its norm is minimised; with ``frames`` in the frames of the largest gradient at the clean clip.
        seeds: int64 ``(B,)``; only the target ``"random"`` depends on them.
        steps: gradient steps K; a clip takes all of them unless it is misclassified as it comes.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None. L is then
            z_t - max_{j≠t} z_j.

    Returns:
        Adversarial clips, same shape. Costs at most K + 3 forwards and K backwards a clip; one more of each with
        ``budget.frames``, and one forward more with ``target``.

    Raises:
        CardError: steps below 1, or no such target.

    References:
        Pintor et al., "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints", arXiv:2102.12827.
    """
    check_counts(steps=steps)
    goal = boundary(make_goal(model, clips, labels, seeds, "margin", target))
    return minimise(model, clips, goal, budget, seeds, partial(_search, steps=steps))


def _search(model: nn.Module, problem: Problem, smallest: Smallest, *, steps: int) -> None:
    iterate, whole = problem.clips, farthest(problem)
    radius = torch.zeros_like(whole)
    for step in range(steps):
        grad, logits = free_gradient(model, iterate, problem)
        adversarial = smallest.offer(iterate, logits)
        ahead = smallest.latest + distance(grad, problem.goal.value(logits), problem.budget)
        change = cosine(*_CHANGES, step, steps)
        wider = torch.where(smallest.size.isfinite(), radius, ahead) * (1 + change)
        tighter = torch.minimum(radius * (1 - change), smallest.size)
        radius = torch.where(adversarial, tighter, wider).minimum(whole)
        iterate = step_in_ball(iterate, grad, problem, radius, cosine(*_STEPS, step, steps))
    with torch.no_grad():
        smallest.offer(iterate, model(iterate))
