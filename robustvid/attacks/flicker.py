"""Flicker: one colour offset for each frame, as a lamp would make it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustvid.attacks.best import Best, only_transfers
from robustvid.attacks.goal import Goal, Target, make_goal
from robustvid.attacks.gradient import Ascent, Problem, view_gradient
from robustvid.budget import Budget

_TIME = 2


def flicker(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 60,
    step_size: float = 0.1,
    weight: float = 1.0,
    thickness_share: float = 0.5,
    margin: float = 0.05,
    target: Target = None,
) -> Tensor:
    """Add one colour u_{t,c} to every pixel of a frame, thin and smooth in time, until the clip is misclassified.

    Minimise Σ max(0, min(ℓ² / m, ℓ)) + λ [β₁ mean u² + (1 - β₁)(mean (u_t - u_{t-1})² + mean (u_{t+1} - 2u_t +
    u_{t-1})²)], ℓ = p_y - max_{i≠y} p_i + m, times cyclic in t:
    u_{k+1} = P_S(u_k + α_k·s(-∇_u)), and x' = clamp(x + u). u is the state and stays one colour; only what is shown is
    clipped. The authors use Adam and no bound; here steps are the budget's steepest ones, falling linearly from
    ``step_size`` times the radius to 0, and the clip is left alone once it is misclassified.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be; linf bounds the colour offsets themselves.
        seeds: int64 ``(B,)``, used for a random target alone.
        steps: gradient steps.
        step_size: first α / ε.
        weight: λ.
        thickness_share: β₁; the rest weighs roughness.
        margin: m.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most steps + 1 forwards and steps backwards a clip, less as soon as it
        is broken; one more of each with ``budget.frames``.

    Raises:
        CardError: steps below 1, or a step size that is not above 0.

    References:
        Pony, Naeh & Mannor, "Over-the-Air Adversarial Flickering Attacks against Video Recognition Networks",
        arXiv:2002.05123.
    """
    Ascent(steps, step_size)  # refuses what would attack nothing
    goal = make_goal(model, clips, labels, seeds, "margin", target)
    best, transfers = Best(clips), only_transfers(model)
    active = torch.arange(len(clips), device=clips.device)
    colours = torch.zeros_like(clips[..., :1, :1])
    problem = Problem(clips, goal, replace(budget, frames=None), seeds, None)
    if budget.frames is not None:
        grad, _, _ = _gradient(model, problem, colours, margin)
        problem = problem._replace(mask=budget.salient(grad.expand_as(clips)))
    for step in range(steps):
        grad, shown, logits = _gradient(model, problem, colours, margin)
        standing = best.score(active, shown, logits, problem.goal)
        if len(standing) < len(active) and not transfers:
            active, colours, grad = active[standing], colours[standing], grad[standing]
            problem = problem.select(standing)
        if not len(active):
            return best.clips
        grad = grad + weight * _regulariser_gradient(colours, thickness_share)
        if problem.mask is not None:
            grad = grad * problem.mask
        moved = colours.expand_as(problem.clips) - step_size * (1 - step / steps) * problem.budget.steepest(
            grad.expand_as(problem.clips)
        )
        colours = problem.budget.project(moved)[..., :1, :1]
    with torch.no_grad():
        shown = rendered(problem.clips, colours)
        best.score(active, shown, model(shown), problem.goal)
    return best.clips


def rendered(clips: Tensor, colours: Tensor) -> Tensor:
    """Return the clips with the colour offsets ``(B, C, T, 1, 1)`` added, as they are shown."""
    return (clips + colours).clamp(0, 1)


def thickness(colours: Tensor) -> Tensor:
    """Return mean |u| as a percentage of the pixel range [0, 1], ``(B,)``, for offsets ``(B, C, T, 1, 1)``."""
    return 100 * colours.abs().mean((1, 2, 3, 4))


def roughness(colours: Tensor) -> Tensor:
    """Return mean |u_t - u_{t-1}|, cyclic in t, as a percentage of the pixel range, ``(B,)``."""
    return 100 * (colours - colours.roll(1, _TIME)).abs().mean((1, 2, 3, 4))


def regulariser(colours: Tensor, thickness_share: float) -> Tensor:
    """Return the paper's penalty of each clip's offsets ``(B, C, T, 1, 1)``, ``(B,)``: thickness and roughness."""
    before, after = colours.roll(1, _TIME), colours.roll(-1, _TIME)
    smooth = (colours - before).square() + (after - 2 * colours + before).square()
    return (thickness_share * colours.square() + (1 - thickness_share) * smooth).mean((1, 2, 3, 4))


class _Loss(NamedTuple):
    """The adversarial loss, falling: what is left of a margin between probabilities, with a kink taken off at 0."""

    goal: Goal
    margin: float

    def value(self, logits: Tensor) -> Tensor:
        excess = self.margin - self.goal.gap(F.softmax(logits, 1))
        return torch.minimum(excess.square() / self.margin, excess).clamp_min(0)

    def select(self, index: Tensor) -> _Loss:
        return _Loss(self.goal.select(index), self.margin)


def _gradient(model: nn.Module, problem: Problem, colours: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of the adversarial loss with respect to the colours, what is shown, and its logits."""
    return view_gradient(model, colours, partial(rendered, problem.clips), _Loss(problem.goal, margin))


def _regulariser_gradient(colours: Tensor, thickness_share: float) -> Tensor:
    with torch.enable_grad():
        leaf = colours.detach().requires_grad_()
        (grad,) = torch.autograd.grad(regulariser(leaf, thickness_share).sum(), leaf)
    return grad
