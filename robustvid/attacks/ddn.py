"""DDN: the smallest l2 perturbation, its direction and its norm changed apart from each other."""

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
from robustvid.errors import BudgetError, CardError

_STEPS = (1.0, 0.01)  # α_0 and α_K, in units of ε_k


def ddn(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 100,
    gamma: float = 0.05,
    target: Target = None,
) -> Tensor:
    """Look for the smallest l2 perturbation; return it where the budget allows it, else the best iterate that fits.

    With g = ∇L/‖∇L‖_2, L the cross-entropy, and δ_0 = 0: ε_{k+1} = ε_k (1 - γ) where δ_k is adversarial and
    ε_k (1 + γ) where it is not; δ_{k+1} = clamp(Π_{ε_{k+1}}(δ_k + α_k ε_{k+1} g)), α_k falling from 1 to 0.01 on a
    cosine. The radius of the budget only decides what is returned, so that one run serves every larger radius.

    Deviations from the paper: Π projects onto the ball, where the paper rescales every δ_k onto the sphere, also one
    that was smaller; ε_0 is the distance of the boundary as the clean gradient has it and steps are in units of ε_k,
    where both are 1 in the paper, whatever the number of pixels; nothing is quantised to 8 bits; budgets of frames are
    new (g is then scaled frame by frame).

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: l2 by clip, by frame or both, where the larger of the two ratios to their radii is minimised; with
            ``frames`` in the frames of the largest gradient at the clean clip.
        seeds: int64 ``(B,)``; only the target ``"random"`` depends on them.
        steps: gradient steps K; a clip takes all of them unless it is misclassified as it comes.
        gamma: γ, the share by which the radius changes.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most K + 4 forwards and K + 1 backwards a clip; one more of each with
        ``budget.frames``, and one forward more with ``target``.

    Raises:
        BudgetError: the budget is in linf.
        CardError: steps below 1, gamma not between 0 and 1, or no such target.

    References:
        Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses",
        arXiv:1811.09600.
    """
    check_counts(steps=steps)
    if not 0 < gamma < 1:
        raise CardError(f"gamma={gamma}: give a share between 0 and 1")
    if budget.norm != "l2":
        raise BudgetError(f"ddn minimises l2 norms, not {budget.norm}; fmn and fab find the smallest linf perturbation")
    goal = make_goal(model, clips, labels, seeds, "cross-entropy", target)
    return minimise(model, clips, goal, budget, seeds, partial(_search, steps=steps, gamma=gamma))


def _search(model: nn.Module, problem: Problem, smallest: Smallest, *, steps: int, gamma: float) -> None:
    iterate, whole = problem.clips, farthest(problem)
    grad, logits = free_gradient(model, iterate, problem._replace(goal=boundary(problem.goal)))
    radius = distance(grad, problem.goal.gap(logits), problem.budget).minimum(whole)
    for step in range(steps):
        grad, logits = free_gradient(model, iterate, problem)
        adversarial = smallest.offer(iterate, logits)
        if step:
            radius = (radius * torch.where(adversarial, 1 - gamma, 1 + gamma)).minimum(whole)
        iterate = step_in_ball(iterate, grad, problem, radius, cosine(*_STEPS, step, steps))
    with torch.no_grad():
        smallest.offer(iterate, model(iterate))
