"""The one loop behind every first-order attack: projected steepest ascent on a loss, inside any budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustvid.attacks.directions import Direction, chain
from robustvid.budget import Budget
from robustvid.errors import CardError
from robustvid.losses import Loss, cross_entropy, margin

_RESTART = 1_000_003  # seeds of restarts: any odd number keeps them apart


_GRADIENT = chain()  # the gradient itself, as it is


@dataclass(frozen=True)
class Ascent:
    """How to climb: the free choices of a first-order attack.

    Attributes:
        steps: gradient steps; the last iterate is scored too, by one more forward.
        step_size: length of a step in units of the budget's radius, α = step_size · ε.
        loss: what is maximised, one value a clip.
        direction: what is done to the gradient before the budget turns it into a step.
        random_start: start at a random point of the budget rather than at the clip.
        restarts: runs from different starting points; only clips still standing are run again.

    Raises:
        CardError: steps or restarts below 1, or a step size that is not above 0.
    """

    steps: int
    step_size: float
    loss: Loss = cross_entropy
    direction: Direction = _GRADIENT
    random_start: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        """Refuse settings under which nothing would be attacked."""
        if self.steps < 1 or self.restarts < 1:
            raise CardError(f"steps={self.steps}, restarts={self.restarts}: give at least 1 of each")
        if not 0 < self.step_size < math.inf:
            raise CardError(f"step_size={self.step_size}: give a finite number above 0, in units of the radius")


def loss_gradient(model: nn.Module, clips: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Return the gradient of the summed loss with respect to ``clips``, and the logits; one forward, one backward."""
    with torch.enable_grad():
        leaf = clips.detach().requires_grad_()
        logits: Tensor = model(leaf)
        (grad,) = torch.autograd.grad(loss(logits, labels).sum(), leaf)
    # A NaN would make every later iterate NaN; without direction there the pixel stays, and the audit raises a flag.
    return grad.nan_to_num(0.0, 0.0, 0.0), logits.detach()


class _Problem(NamedTuple):
    """Clips to attack, each with its own budget and seed; ``frames`` is 1 where a frame may change, None for all."""

    clips: Tensor
    labels: Tensor
    budget: Budget
    seeds: Tensor
    frames: Tensor | None

    def select(self, index: Tensor) -> _Problem:
        frames = None if self.frames is None else self.frames[index]
        seeds = self.seeds[index.to(self.seeds.device)]
        return _Problem(self.clips[index], self.labels[index], self.budget.select(index), seeds, frames)


class _Best:
    """The iterate of the largest margin of every clip, and whether it is misclassified."""

    def __init__(self, clips: Tensor) -> None:
        self.clips = clips.clone()
        self.margin = clips.new_full((len(clips),), -torch.inf)
        self.broken = torch.zeros(len(clips), dtype=torch.bool, device=clips.device)

    def offer(self, index: Tensor, clips: Tensor, margins: Tensor, broken: Tensor) -> None:
        better = (margins > self.margin[index]) | (broken & ~self.broken[index])
        self.clips[index[better]] = clips[better]
        self.margin[index[better]] = margins[better]
        self.broken[index] |= broken


def ascend(  # noqa: PLR0917  the five inputs of every attack, then how to climb
    model: nn.Module, clips: Tensor, labels: Tensor, budget: Budget, seeds: Tensor, ascent: Ascent
) -> Tensor:
    """Return for every clip the iterate with the largest margin, ``(B, C, T, H, W)`` in [0, 1] and in the budget.

    x_{k+1} = clamp(x + P(x_k + α·s(d_k) - x)), with d_k the direction made of ∇loss(x_k), s the steepest point of
    the budget along it and P the projection. A clip is left alone as soon as it is misclassified. With
    ``budget.frames`` the frames are chosen once, by the gradient's dual norm at the clean clip (one more forward and
    backward), and both start and steps stay in them.
    """
    frames = None
    if budget.frames is not None:
        frames = budget.salient(loss_gradient(model, clips, labels, ascent.loss)[0])
    problem = _Problem(clips, labels, budget, seeds, frames)
    best = _Best(clips)
    for restart in range(ascent.restarts):
        standing = (~best.broken).nonzero().squeeze(1)
        if not len(standing):
            break
        run = _climb(model, problem._replace(seeds=seeds + restart * _RESTART).select(standing), ascent)
        best.offer(standing, run.clips, run.margin, run.broken)
    return best.clips


def _climb(model: nn.Module, problem: _Problem, ascent: Ascent) -> _Best:
    best = _Best(problem.clips)
    active = torch.arange(len(problem.clips), device=problem.clips.device)
    iterate = _begin(problem, ascent)
    memory = ascent.direction.init(iterate)
    for _ in range(ascent.steps):
        grad, logits = loss_gradient(model, iterate, problem.labels, ascent.loss)
        standing = _score(best, active, iterate, logits, problem.labels)
        if len(standing) < len(active):
            active, iterate, grad = active[standing], iterate[standing], grad[standing]
            problem, memory = problem.select(standing), tuple(tensor[standing] for tensor in memory)
        if not len(active):
            return best
        grad, memory = ascent.direction.update(grad if problem.frames is None else grad * problem.frames, memory)
        step = ascent.step_size * problem.budget.steepest(grad)
        iterate = (problem.clips + problem.budget.project(iterate + step - problem.clips)).clamp(0, 1)
    with torch.no_grad():
        _score(best, active, iterate, model(iterate), problem.labels)
    return best


def _begin(problem: _Problem, ascent: Ascent) -> Tensor:
    if not ascent.random_start:
        return problem.clips
    delta = replace(problem.budget, frames=None).start(problem.clips, problem.seeds)
    return (problem.clips + (delta if problem.frames is None else delta * problem.frames)).clamp(0, 1)


def _score(best: _Best, active: Tensor, iterate: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Note the iterates that are the best so far; return which of the active clips still stand."""
    fallen = logits.argmax(1) != labels
    best.offer(active, iterate, margin(logits, labels), fallen)
    return (~fallen).nonzero().squeeze(1)
