"""FAB-T: the smallest perturbation, by projections onto the linearised boundary of one wrong class after another."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from robustvid.attacks.goal import Goal
from robustvid.attacks.gradient import Problem, check_counts
from robustvid.attacks.minimum import Smallest, free_gradient, minimise
from robustvid.budget import Budget

_PIECES = 50  # steps of Newton's method; about ten reach the last piece


def fab(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 100,
    targets: int = 9,
    alpha_max: float = 0.1,
    overshoot: float = 1.05,
    backward: float = 0.9,
) -> Tensor:
    """Look for the smallest perturbation; return it where the budget allows it, else the best iterate that fits.

    For each target t, the wrong class of the largest logit on the clean clip x, then that of the second largest, and
    so on: with π the hyperplane where z_t - z_y, linearised at x_k, is 0, and P_π the nearest point of π ∩ [0, 1]^n in
    the budget's norm, d = P_π(x_k) - x_k, d' = P_π(x) - x and α = min(‖d‖ / (‖d‖ + ‖d'‖), α_max):
    x_{k+1} = clamp((1 - α)(x_k + η d) + α (x + η d')), and where that is adversarial, x_{k+1} ← x + β (x_{k+1} - x).
    The radius of the budget only decides what is returned, so that one run serves every larger radius.

    P_π is found by Newton's method on the multiplier rather than by sorting the pixels. The paper's random restarts and
    its final search on a line are left out; so is the untargeted form, which takes a backward for every class.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: decides what is smallest and what is returned. Projections are in linf or, for any l2 budget, in the l2
            norm of the clip: there is no closed form for frames. With ``frames`` in the frames of the largest gradient
            at the clean clip.
        seeds: int64 ``(B,)``; nothing here is random.
        steps: projections towards each target; a clip takes all of them unless it is misclassified as it comes.
        targets: how many wrong classes are tried, at most K - 1.
        alpha_max: α_max, how much the iterate is drawn to the clean clip at most.
        overshoot: η.
        backward: β.

    Returns:
        Adversarial clips, same shape. Costs at most 3 + 2 · targets · steps forwards and targets · steps backwards a
        clip; one more of each with ``budget.frames``.

    Raises:
        CardError: steps or targets below 1.

    References:
        Croce & Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack", arXiv:1907.02044;
        its targeted form in "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
        Attacks", arXiv:2003.01690.
    """
    check_counts(steps=steps, targets=targets)
    walk = partial(_walk, steps=steps, alpha_max=alpha_max, overshoot=overshoot, backward=backward)

    def search(model: nn.Module, problem: Problem, smallest: Smallest) -> None:
        with torch.no_grad():
            logits = model(problem.clips)
        own = problem.goal.labels
        ranking = logits.scatter(1, own[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
        for rank in range(min(targets, logits.shape[1] - 1)):
            walk(model, problem._replace(goal=Goal(own, "margin", ranking[:, rank])), smallest)

    return minimise(model, clips, Goal(labels, "margin"), budget, seeds, search)


def _walk(
    model: nn.Module,
    problem: Problem,
    smallest: Smallest,
    *,
    steps: int,
    alpha_max: float,
    overshoot: float,
    backward: float,
) -> None:
    """Go along the boundary to the problem's targets, noting every iterate."""
    clean = iterate = problem.clips
    size, norm = problem.budget.size, problem.budget.norm
    for _ in range(steps):
        grad, logits = free_gradient(model, iterate, problem)
        rise = -problem.goal.value(logits).double()
        ahead = to_hyperplane(iterate, grad, rise, norm)
        rise_from_clean = rise + (grad.double() * (iterate - clean)).sum((1, 2, 3, 4))
        ahead_from_clean = to_hyperplane(clean, grad, rise_from_clean, norm)
        near, far = size(ahead), size(ahead_from_clean)
        alpha = (near / (near + far).clamp_min(torch.finfo(near.dtype).tiny)).clamp_max(alpha_max)
        alpha = alpha.to(clean)[:, None, None, None, None]
        # Written as a change of the clean clip, which leaves pixels that do not move exactly as they are.
        delta = (1 - alpha) * (iterate - clean + overshoot * ahead) + alpha * overshoot * ahead_from_clean
        iterate = (clean + delta).clamp(0, 1)
        with torch.no_grad():
            adversarial = smallest.offer(iterate, model(iterate))
        iterate = torch.where(adversarial[:, None, None, None, None], clean + backward * (iterate - clean), iterate)


def to_hyperplane(points: Tensor, normal: Tensor, rise: Tensor, norm: str) -> Tensor:
    """Return the smallest d with ⟨normal, d⟩ = rise and points + d in [0, 1], shaped as ``points``.

    d_i = ±min(λ v_i, r_i), with r_i the room that is left to the box in the direction of the rise, and speeds v = 1 for
    linf, |normal| for l2. ⟨normal, d⟩ grows with λ in straight pieces that become flatter, so that Newton's method from
    λ = 0 never overshoots and stops at the λ wanted once it is on the right piece. Where the hyperplane does not meet
    the box, d leads to the corner nearest to it.

    Args:
        points: ``(B, ...)`` in [0, 1].
        normal: same shape.
        rise: ``(B,)``, of either sign.
        norm: ``linf`` or ``l2``.
    """
    weight = normal.abs().flatten(1)
    scale = weight.amax(1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    weight, wanted = weight / scale, (rise.abs().double() / scale.squeeze(1))[:, None]
    sign = normal.flatten(1).sign() * rise.sign().to(normal)[:, None]
    room = torch.where(sign > 0, 1 - points.flatten(1), points.flatten(1))
    speed = weight.sign() if norm == "linf" else weight
    gain = weight * speed
    level = torch.zeros_like(wanted)
    for _ in range(_PIECES):
        step = level.to(weight) * speed
        missing = wanted - (weight * torch.minimum(step, room)).sum(1, keepdim=True, dtype=torch.float64)
        slope = (gain * (step < room)).sum(1, keepdim=True, dtype=torch.float64)
        onward = (missing > 1e-6 * wanted) & (slope > 0)
        if not bool(onward.any()):
            break
        # Finite, as a pixel of weight 0 must not come to inf · 0.
        level = torch.where(onward, level + missing / slope, level).clamp_max(1e30)
    return (sign * torch.minimum(level.to(weight) * speed, room)).reshape(points.shape)
