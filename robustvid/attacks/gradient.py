"""The one loop behind every first-order attack: projected steepest ascent on a loss, inside any budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustvid.attacks.best import RESTART, Best, only_transfers
from robustvid.attacks.directions import Direction, Memory, chain
from robustvid.attacks.goal import Climbed, Goal
from robustvid.budget import Budget
from robustvid.errors import CardError

# (model, clips, goal, seeds, step) -> (gradient, logits of the clips themselves)
Oracle = Callable[[nn.Module, Tensor, Goal, Tensor, int], tuple[Tensor, Tensor]]
_GRADIENT = chain()  # the gradient itself, as it is


class Problem(NamedTuple):
    """Clips to attack, each with its own budget and seed; ``mask`` is 1 where a clip may change, None for anywhere."""

    clips: Tensor
    goal: Goal
    budget: Budget
    seeds: Tensor
    mask: Tensor | None

    def select(self, index: Tensor) -> Problem:
        """Return the problem of some clips of the batch."""
        mask = None if self.mask is None else self.mask[index]
        seeds = self.seeds[index.to(self.seeds.device)]
        return Problem(self.clips[index], self.goal.select(index), self.budget.select(index), seeds, mask)


class Look(NamedTuple):
    """What a refinement sees of the clips that still stand.

    Attributes:
        point: where the gradient was taken.
        grad: the oracle's gradient.
        problem: the clips, with their goals, budgets and seeds.
        memory: what the refinement returned at the step before; empty at first.
        step: number of the step, from 0.
    """

    point: Tensor
    grad: Tensor
    problem: Problem
    memory: Memory
    step: int


# (model, look) -> (gradient, memory); runs after clips that are done were dropped, so that it costs them nothing
Refinement = Callable[[nn.Module, Look], tuple[Tensor, Memory]]


def loss_gradient(model: Callable[[Tensor], Tensor], clips: Tensor, goal: Climbed) -> tuple[Tensor, Tensor]:
    """Return the gradient of the summed loss with respect to ``clips``, and the logits; one forward, one backward.

    A model that is asked in lanes is asked lane by lane: what it keeps for the backward is of one lane at a time.
    """
    lanes = getattr(model, "lanes", len(clips))
    if lanes >= len(clips):
        return _gradient(model, clips, goal)
    places = torch.arange(len(clips), device=clips.device)
    parts = [
        _gradient(model, part, goal.select(rows))
        for part, rows in zip(clips.split(lanes), places.split(lanes), strict=True)
    ]
    grads, logits = zip(*parts, strict=True)
    return torch.cat(grads), torch.cat(logits)


def _gradient(model: Callable[[Tensor], Tensor], clips: Tensor, goal: Climbed) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = clips.detach().requires_grad_()
        logits: Tensor = model(leaf)
        (grad,) = torch.autograd.grad(goal.value(logits).sum(), leaf)
    # In the layout of the clips, as a step that mixes layouts takes four times as long. A NaN would make every later
    # iterate NaN; without direction there the pixel stays, and the audit raises a flag.
    return grad.contiguous().nan_to_num_(0.0, 0.0, 0.0), logits.detach()


def view_gradient(
    model: Callable[[Tensor], Tensor], source: Tensor, view: Callable[[Tensor], Tensor], goal: Climbed
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient with respect to ``source`` when the model sees ``view`` of it, the view, and its logits.

    The model's part is :func:`loss_gradient`'s, lane by lane; the view's is taken of the whole batch.
    """
    with torch.enable_grad():
        leaf = source.detach().requires_grad_()
        shown = view(leaf)
    grad, logits = loss_gradient(model, shown.detach(), goal)
    (grad,) = torch.autograd.grad(shown, leaf, grad)
    return grad.nan_to_num_(0.0, 0.0, 0.0), shown.detach(), logits


def expected(samples: int) -> Oracle:
    """Return the gradient averaged over ``samples`` passes, for models that answer at random; logits likewise.

    Athalye et al., "Synthesizing Robust Adversarial Examples", arXiv:1707.07397 (expectation over transformation).

    Raises:
        CardError: fewer than one sample.
    """
    if samples < 1:
        raise CardError(f"eot={samples}: give at least 1 sample of the model")

    def oracle(model: nn.Module, clips: Tensor, goal: Goal, _seeds: Tensor, _step: int) -> tuple[Tensor, Tensor]:
        grad, logits = loss_gradient(model, clips, goal)
        for _ in range(samples - 1):
            more, again = loss_gradient(model, clips, goal)
            grad, logits = grad + more, logits + again
        return (grad, logits) if samples == 1 else (grad / samples, logits / samples)

    return oracle


_PLAIN = expected(1)


def check_counts(**counts: int) -> None:
    """Refuse settings under which nothing would be attacked.

    Raises:
        CardError: a count is below 1.
    """
    if min(counts.values()) < 1:
        raise CardError(f"{', '.join(f'{name}={count}' for name, count in counts.items())}: give at least 1 of each")


@dataclass(frozen=True)
class Ascent:
    """How to climb: the free choices of a first-order attack.

    Attributes:
        steps: gradient steps; the last iterate is scored too, by one more forward.
        step_size: length of a step in units of the budget's radius, α = step_size · ε.
        direction: what is done to the gradient before the budget turns it into a step.
        oracle: where the gradient comes from.
        random_start: start at a random point of the budget rather than at the clip.
        restarts: runs from different starting points; only clips still standing are run again.
        lookahead: take the gradient so many momentum steps ahead of the iterate.
        refine: makes the gradient of a step out of the oracle's, by further passes; only for clips that still stand.
        decay: let the steps fall linearly, from ``step_size`` at the first towards 0 after the last.

    Raises:
        CardError: steps or restarts below 1, or a step size that is not above 0.
    """

    steps: int
    step_size: float
    direction: Direction = _GRADIENT
    oracle: Oracle = _PLAIN
    random_start: bool = True
    restarts: int = 1
    lookahead: float = 0.0
    refine: Refinement | None = None
    decay: bool = False

    def __post_init__(self) -> None:
        """Refuse settings under which nothing would be attacked."""
        check_counts(steps=self.steps, restarts=self.restarts)
        if not 0 < self.step_size < math.inf:
            raise CardError(f"step_size={self.step_size}: give a finite number above 0, in units of the radius")


def salient_frames(model: nn.Module, clips: Tensor, goal: Goal, budget: Budget, mask: Tensor | None = None) -> Tensor:
    """Return 1 for the frames of largest dual gradient norm at ``clips``, ``(B, 1, T, 1, 1)``; 1 forward, 1 backward.

    The ranking of Inkawhich et al., "Adversarial Attacks for Optical Flow-Based Action Recognition Classifiers",
    arXiv:1811.11875, for any norm. Only what ``mask`` leaves free counts.
    """
    grad = loss_gradient(model, clips, goal)[0]
    return budget.salient(grad if mask is None else grad * mask)


def ascend(  # noqa: PLR0917  the inputs of every attack, then how to climb
    model: nn.Module,
    clips: Tensor,
    goal: Goal,
    budget: Budget,
    seeds: Tensor,
    ascent: Ascent,
    mask: Tensor | None = None,
) -> Tensor:
    """Return for every clip the iterate with the largest gap, ``(B, C, T, H, W)`` in [0, 1] and in the budget.

    x_{k+1} = clamp(x + P(x_k + α·s(d_k) - x)), with d_k the direction made of ∇loss(x_k), s the steepest point of
    the budget along it and P the projection. A clip is left alone as soon as its goal is met, unless the model is a
    surrogate. With ``budget.frames`` the frames are chosen by the gradient's dual norm at the clean clip (one more
    forward and backward), and both start and steps stay in them.

    Args:
        model: returns logits ``(B, K)``.
        clips: ``(B, C, T, H, W)`` in [0, 1].
        goal: what to climb.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``.
        ascent: how to climb.
        mask: 1 where a clip may change, broadcastable to the clips with the batch's own first axis.
    """
    if budget.frames is not None:
        frames = salient_frames(model, clips, goal, budget, mask)
        mask = frames if mask is None else frames * mask
    problem = Problem(clips, goal, budget, seeds, mask)
    best = Best(clips)
    for restart in range(ascent.restarts):
        standing = best.standing()
        if not len(standing):
            break
        run = climb(model, problem._replace(seeds=seeds + restart * RESTART).select(standing), ascent)
        best.offer(standing, run.clips, run.gap, run.met)
    return best.clips


def climb(model: nn.Module, problem: Problem, ascent: Ascent, start: Tensor | None = None) -> Best:
    """Climb once, from ``start`` or from where ``ascent`` says, and return the best iterates met on the way."""
    best, transfers = Best(problem.clips), only_transfers(model)
    active = torch.arange(len(problem.clips), device=problem.clips.device)
    iterate = start if start is not None else begin(problem) if ascent.random_start else problem.clips
    memory = ascent.direction.init(iterate)
    refined: Memory = ()
    for step in range(ascent.steps):
        point = _ahead(iterate, memory, problem.budget, ascent) if step else iterate  # no velocity yet
        grad, logits = ascent.oracle(model, point, problem.goal, problem.seeds, step)
        if point is not iterate:
            with torch.no_grad():
                logits = model(iterate)
        standing = best.score(active, iterate, logits, problem.goal)
        if len(standing) < len(active) and not transfers:
            active, iterate, grad, point = (tensor[standing] for tensor in (active, iterate, grad, point))
            memory, refined = (tuple(tensor[standing] for tensor in kept) for kept in (memory, refined))
            problem = problem.select(standing)
        if not len(active):
            return best
        if ascent.refine:
            grad, refined = ascent.refine(model, Look(point, grad, problem, refined, step))
        length = ascent.step_size * (1 - step / ascent.steps if ascent.decay else 1)
        grad, memory = ascent.direction.update(grad if problem.mask is None else grad * problem.mask, memory)
        iterate = _step(iterate, grad, problem, length)
    with torch.no_grad():
        best.score(active, iterate, model(iterate), problem.goal)
    return best


def begin(problem: Problem) -> Tensor:
    """Return a random starting point in the budget, where the mask allows it and in [0, 1]."""
    return (problem.clips + draw(problem, problem.seeds)).clamp(0, 1)


def draw(problem: Problem, seeds: Tensor) -> Tensor:
    """Return a random perturbation in the budget, where the mask allows it."""
    delta = replace(problem.budget, frames=None).start(problem.clips, seeds)
    return delta if problem.mask is None else delta * problem.mask


def _step(iterate: Tensor, direction: Tensor, problem: Problem, length: float) -> Tensor:
    delta = problem.budget.steepest(direction, length)  # ours from here on: in place costs half of what new tensors do
    delta.add_(iterate).sub_(problem.clips)
    delta = problem.budget.project_(delta if problem.mask is None else delta.mul_(problem.mask))
    return delta.add_(problem.clips).clamp_(0, 1)


def _ahead(iterate: Tensor, memory: Memory, budget: Budget, ascent: Ascent) -> Tensor:
    """Return the iterate moved along the velocity, the last memory, as far as a step of the same mean size."""
    if not ascent.lookahead:
        return iterate
    velocity = memory[-1]
    scale = budget.steepest(velocity).abs().mean((1, 2, 3, 4), keepdim=True)
    return iterate + ascent.lookahead * ascent.step_size * scale * velocity
