"""What minimum-norm attacks share: sizes in units of the budget, the smallest adversarial clip, and its norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustvid.attacks.best import Best, only_transfers
from robustvid.attacks.goal import Goal
from robustvid.attacks.gradient import Problem, loss_gradient, salient_frames
from robustvid.budget import Budget
from robustvid.contracts import AttackFunction, frozen
from robustvid.errors import BudgetError

# Smallest perturbations lie where rounding decides. A clip counts as adversarial only when its gap is larger than
# this share of its largest logit, so that it is adversarial in any batch, too.
_SURE = 1e-5


def minimum_norms(
    attack: AttackFunction,
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    seeds: Tensor,
    *,
    norm: str = "l2",
    per: str = "clip",
    frames: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the smallest adversarial clips that an attack finds when any size is allowed, and how large they are.

    Meant for ``fmn``, ``ddn`` and ``fab``, which look for the smallest. Quantiles of the norms are good radii for a
    sweep: at the median half of the clips are broken.

    Args:
        attack: for example ``rv.load_attack("fmn:steps=300")``.
        model: returns logits ``(B, K)``; lent out in evaluation mode and given back unchanged.
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        seeds: int64 ``(B,)``.
        norm: ``linf`` or ``l2``.
        per: ``frame``, the largest norm of any frame, or ``clip``, the l2 norm of the whole perturbation.
        frames: at most so many frames change.

    Returns:
        Clips, and norms float64 ``(B,)`` in units of pixels in [0, 1], as in a :class:`~robustvid.budget.Budget`:
        0 where the clip was misclassified as it came, infinite where nothing adversarial was found. Costs one forward
        more than the attack.

    Raises:
        BudgetError: there is no such norm, or the attack does not serve it.
    """
    if per not in {"frame", "clip"}:
        raise BudgetError(f"per={per!r}: give frame or clip")
    everything = math.sqrt(clips[0].numel()) if norm == "l2" else 1.0
    budget = Budget(norm, frames=frames, **{per: everything})
    with frozen(model), torch.no_grad():
        found = attack(model, clips, labels, budget, seeds)
        broken = model(found).argmax(1) != labels
    delta = (found - clips).double()
    if norm == "linf":
        norms = delta.abs().amax((1, 2, 3, 4))
    else:
        over = torch.linalg.vector_norm(delta, dim=(1, 3, 4))
        norms = over.amax(1) if per == "frame" else torch.linalg.vector_norm(over, dim=1)
    return found, torch.where(broken, norms, torch.inf)


class Smallest:
    """The smallest adversarial iterate of every clip, and the best iterate that the budget allows.

    Sizes are in units of the budget: 1 is as large as allowed.

    Attributes:
        clips: ``(B, C, T, H, W)``, the smallest adversarial clips; the last iterate until there is one.
        size: float64 ``(B,)``; infinite until there is one.
        latest: float64 ``(B,)``, the size of the last iterate.
        fitting: the iterates of largest gap among those in the budget.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.clips = problem.clips.clone()
        self.size = torch.full((len(self.clips),), torch.inf, dtype=torch.float64, device=self.clips.device)
        self.latest = self.size
        self.fitting = Best(problem.clips)

    def offer(self, iterate: Tensor, logits: Tensor) -> Tensor:
        """Note one iterate of every clip by its logits; return which are adversarial, bool ``(B,)``."""
        goal = self._problem.goal
        self.latest = size = self._problem.budget.size(iterate - self._problem.clips)
        gap, met = goal.gap(logits), goal.met(logits)
        adversarial = met & (gap > _SURE * logits.abs().amax(1))
        better = torch.where(adversarial, size < self.size, self.size.isinf())
        self.clips[better] = iterate[better]
        self.size = torch.where(adversarial, torch.minimum(size, self.size), self.size)
        inside = (size <= 1).nonzero().squeeze(1)
        self.fitting.offer(inside, iterate[inside], gap[inside], met[inside])
        return adversarial

    def settle(self, model: nn.Module) -> Tensor:
        """Return the smallest adversarial clip where it is in the budget, elsewhere the best iterate that is.

        What lies outside is projected and scored too, by one forward.
        """
        outside = (self.size > 1).nonzero().squeeze(1)
        if len(outside):
            part = self._problem.select(outside)
            delta = part.budget.project(self.clips[outside] - part.clips)
            projected = (part.clips + delta).clamp(0, 1)
            with torch.no_grad():
                logits = model(projected)
            self.fitting.offer(outside, projected, part.goal.gap(logits), part.goal.met(logits))
        if only_transfers(model):
            return self.fitting.clips
        return torch.where((self.size <= 1)[:, None, None, None, None], self.clips, self.fitting.clips)


# (model, problem, where iterates are noted); the problem's budget has no ``frames``, they are in its mask
Search = Callable[[nn.Module, Problem, Smallest], None]


def minimise(  # noqa: PLR0917  the inputs of every attack, then how to search
    model: nn.Module, clips: Tensor, goal: Goal, budget: Budget, seeds: Tensor, search: Search
) -> Tensor:
    """Return what a search for the smallest perturbation finds, inside the budget.

    A clip whose goal is met as it came is left alone. With ``budget.frames`` the frames are chosen by the gradient's
    dual norm at the clean clip. Costs one forward for this, one of each for the frames, what the search costs, and
    one forward for clips whose smallest perturbation is larger than the budget.
    """
    with torch.no_grad():
        logits = model(clips)
    result, ball = clips.clone(), replace(budget, frames=None)
    movable = ball.size(torch.ones_like(clips)).isfinite()  # a radius of 0 leaves nothing to search
    active = (movable & (~goal.met(logits) | only_transfers(model))).nonzero().squeeze(1)
    if not len(active):
        return result
    problem = Problem(clips, goal, budget, seeds, None).select(active)
    if budget.frames is not None:
        problem = problem._replace(mask=salient_frames(model, problem.clips, problem.goal, problem.budget))
    problem = problem._replace(budget=replace(problem.budget, frames=None))
    smallest = Smallest(problem)
    smallest.offer(problem.clips, logits[active])
    search(model, problem, smallest)
    result[active] = smallest.settle(model)
    return result


@dataclass(frozen=True)
class Boundary(Goal):
    """A goal whose loss is the gap itself: 0 on the boundary, and above it beyond."""

    def value(self, logits: Tensor) -> Tensor:
        """Return the gap, ``(B,)``, differentiable."""
        return self.gap(logits)


def boundary(goal: Goal) -> Boundary:
    """Return the same goal with the gap for its loss."""
    return Boundary(goal.labels, targets=goal.targets, reach=goal.reach)


def free_gradient(model: nn.Module, iterate: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Return the gradient of the goal's loss, 0 where clips may not change, and the logits."""
    grad, logits = loss_gradient(model, iterate, problem.goal)
    return (grad if problem.mask is None else grad * problem.mask), logits


def distance(grad: Tensor, gap: Tensor, budget: Budget) -> Tensor:
    """Return |gap| / ‖grad‖_dual: how far the linearised boundary is, in units of the budget, float64 ``(B,)``."""
    slope = (grad.double() * budget.steepest(grad)).sum((1, 2, 3, 4))
    return gap.abs().double() / slope.clamp_min(torch.finfo(slope.dtype).tiny)


def farthest(problem: Problem) -> Tensor:
    """Return the size of a change from black to white everywhere, finite float64 ``(B,)``."""
    return problem.budget.size(torch.ones_like(problem.clips))


def step_in_ball(iterate: Tensor, grad: Tensor, problem: Problem, radius: Tensor, share: float) -> Tensor:
    """Return Π(iterate + share · radius · s(grad)), Π onto the ball of ``radius`` ``(B,)`` and then onto [0, 1].

    The ball is the budget scaled, so that sizes, directions and projection fit every budget alike. The projection is
    onto the ball: what lies inside is not pushed out to the sphere.
    """
    ball = _scaled(problem.budget, radius)
    delta = ball.steepest(grad, share).add_(iterate).sub_(problem.clips)
    return ball.project_(delta).add_(problem.clips).clamp_(0, 1)


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """Return the value at ``step`` of a half cosine that falls from ``first`` to ``last``."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2


def _scaled(budget: Budget, factor: Tensor) -> Budget:
    """Return the budget with every radius multiplied by the clip's own finite factor ``(B,)``."""
    radii = {name: getattr(budget, name) for name in ("frame", "clip")}
    numbers = {name: r.to(factor) if isinstance(r, Tensor) else float(r) for name, r in radii.items() if r is not None}
    return replace(budget, **{name: factor * number for name, number in numbers.items()})  # type: ignore[arg-type]
