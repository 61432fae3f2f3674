"""RayS for video: the nearest wrong answer along rays of signs, found by nothing but the predicted class."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustvid.attacks.best import only_transfers
from robustvid.attacks.goal import Goal
from robustvid.attacks.gradient import Problem
from robustvid.budget import Budget
from robustvid.errors import CardError

_Block = tuple[tuple[int, int], ...]
_WINDOWS = 8  # with fewer frames than the clip has: so many places for them are tried first


def rays(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    queries: int = 1000,
    tolerance: float = 0.01,
) -> Tensor:
    """Turn a ray of signs, block by block, so that it meets a wrong answer earlier; reads the predicted class alone.

    With r(λ; s) = clamp(x + λ·e(s)) for signs s, where e(s) is the steepest point of the budget along them (ε·s for
    linf), let λ(s) be where the class changes. Start with s = 1 and find λ by doubling from 1. For each block of ever
    finer partitions turn its signs: s'. Fast check: unless r(λ; s') is misclassified, s' is dropped, at one query.
    Else s ← s', and λ(s') is bracketed by steps down that double, then by halving, to ``tolerance``. A clip is done as
    soon as it is misclassified at λ ≤ 1, inside the budget.

    A block halves along time until it is one frame, then along the longer of height and width, and into channels at
    the very end. With ``budget.frames`` the ray starts on frames spread over the clip; windows of frames in a row are
    tried before the blocks, which are those of the chosen frames. All blocks done, it starts over.

    Deviates from the paper: blocks of space and time instead of stretches of the flattened image; the first radius is
    looked for upwards from the budget, later ones downwards from the last, so that most queries fall near the boundary;
    for l2 all values of a ray move equally far.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1], of which the largest is found and nothing else.
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, unused: nothing is drawn.
        queries: clips shown to the model for each clip, the clean one among them.
        tolerance: relative precision of λ.

    Returns:
        Adversarial clips, same shape; where none was found, the best ray's point at λ = 1. Costs at most ``queries``
        forwards and no backward a clip, less as soon as it is broken.

    Raises:
        CardError: a setting with which nothing would be attacked.

    References:
        Chen & Gu, "RayS: A Ray Searching Method for Hard-label Adversarial Attack", arXiv:2006.12792.
    """
    if queries < 2:
        raise CardError(f"queries={queries}: give at least 2, one for the clip and one for a ray")
    if not 0 < tolerance < 1:
        raise CardError(f"tolerance={tolerance}: give a number between 0 and 1")
    result, goal, ball = clips.clone(), Goal(labels), replace(budget, frames=None)
    with torch.no_grad():
        standing = ~goal.met(model(clips)) | only_transfers(model)
        movable = ball.steepest(torch.ones_like(clips)).flatten(1).any(1)  # not with a radius of 0
        counts = torch.as_tensor(clips.shape[2] if budget.frames is None else budget.frames, device=clips.device)
        counts = counts.expand(len(clips)).clamp_max(clips.shape[2])
        problem = Problem(clips, goal, ball, seeds, None)
        for count in counts[standing & movable].unique().tolist():
            places = (standing & movable & (counts == count)).nonzero().squeeze(1)
            result[places] = _search(model, problem.select(places), count, queries - 1, tolerance)
    return result


class _Ray(NamedTuple):
    """Signs ``(A, C, k, H, W)`` and the frames ``(A, k)`` that they stand for."""

    signs: Tensor
    frames: Tensor

    def of(self, problem: Problem) -> Tensor:
        """Return the perturbation at λ = 1."""
        where = self.frames[:, None, :, None, None].expand_as(self.signs)
        return problem.budget.steepest(torch.zeros_like(problem.clips).scatter(2, where, self.signs))


class _State(NamedTuple):
    """The search for some clips, one row each.

    Attributes:
        signs: of the best ray.
        frames: of the best ray.
        radius: λ at which the best ray is misclassified; infinite until one is.
        trial_signs: of the ray that is being tried.
        trial_frames: likewise.
        high: λ at which the trial is misclassified, or has to be to beat the best.
        low: λ at which the trial is not; 0 until one is known.
        step: how far below ``high`` to look next.
        turn: number of the proposal that made the trial.
    """

    signs: Tensor
    frames: Tensor
    radius: Tensor
    trial_signs: Tensor
    trial_frames: Tensor
    high: Tensor
    low: Tensor
    step: Tensor
    turn: Tensor

    def best(self) -> _Ray:
        return _Ray(self.signs, self.frames)

    def trial(self) -> _Ray:
        return _Ray(self.trial_signs, self.trial_frames)

    def select(self, index: Tensor) -> _State:
        return _State(*(tensor[index] for tensor in self))


def _search(model: nn.Module, problem: Problem, count: int, queries: int, tolerance: float) -> Tensor:
    """Return what the rays over ``count`` frames find for clips that all stand."""
    result, places = problem.clips.clone(), torch.arange(len(problem.clips), device=problem.clips.device)
    supports, blocks = (table.to(problem.clips.device) for table in _proposals(problem.clips, count, queries))
    state, transfers = _start(problem.clips, supports[0]), only_transfers(model)
    for _ in range(queries):
        delta = state.trial().of(problem)
        furthest = (1 / delta.abs().amax((1, 2, 3, 4))).clamp_min(1)  # all black or white there
        length = _length(state, furthest, 0.0 if transfers else 1.0)
        shown = (problem.clips + length[:, None, None, None, None] * delta).clamp(0, 1)
        wrong = problem.goal.met(model(shown))
        done = wrong & (length <= 1) & (not transfers)
        result[places[done]] = shown[done]
        state = _learn(state, length, wrong, tolerance)
        if bool(done.any()):
            standing = (~done).nonzero().squeeze(1)
            if not len(standing):
                return result
            places, state, problem, furthest = (
                places[standing],
                state.select(standing),
                problem.select(standing),
                furthest[standing],
            )
        _propose(state, furthest, supports, blocks, tolerance)
    result[places] = (problem.clips + state.best().of(problem)).clamp(0, 1)
    return result


def _start(clips: Tensor, support: Tensor) -> _State:
    frames = support.expand(len(clips), -1)
    signs = torch.ones_like(clips[:, :, : len(support)])
    zero = clips.new_zeros(len(clips))
    unknown = torch.full_like(zero, torch.inf)
    turn = torch.zeros(len(clips), dtype=torch.long, device=clips.device)
    return _State(signs, frames, unknown, signs.clone(), frames.clone(), unknown, zero, zero, turn)


def _length(state: _State, furthest: Tensor, floor: float) -> Tensor:
    """Return the λ to ask about next: up until misclassified, down until not, then in between."""
    up = torch.where(state.low == 0, 1.0, 2 * state.low).minimum(furthest)
    down = (state.high - state.step).maximum(state.high / 2).clamp_min(floor)
    known = torch.where(state.low == 0, down, (state.low + state.high) / 2)
    return torch.where(state.high.isinf(), up, known)


def _learn(state: _State, length: Tensor, wrong: Tensor, tolerance: float) -> _State:
    """Return the state after an answer: what is misclassified no later than the best ray takes its place."""
    rows = wrong[:, None, None, None, None]
    further = torch.where(state.step == 0, tolerance * length, 2 * state.step)
    return state._replace(
        signs=torch.where(rows, state.trial_signs, state.signs),
        frames=torch.where(wrong[:, None], state.trial_frames, state.frames),
        radius=torch.where(wrong, length, state.radius),
        high=torch.where(wrong, length, state.high),
        low=torch.where(wrong, state.low, length),
        step=torch.where(wrong, further, state.step),
    )


def _propose(state: _State, furthest: Tensor, supports: Tensor, blocks: Tensor, tolerance: float) -> None:
    """Give those clips the next ray whose trial is over: its λ is known well enough, or it is never misclassified."""
    found = state.high.isfinite()
    over = torch.where(found, state.high - state.low <= tolerance * state.high, state.low >= furthest)
    index = over.nonzero().squeeze(1)
    if not len(index):
        return
    state.turn[index] += 1
    number = state.turn[index] % (len(supports) + len(blocks))
    moving = number < len(supports)
    frames = supports[number.clamp_max(len(supports) - 1)]
    state.trial_frames[index] = torch.where(moving[:, None], frames, state.frames[index])
    block = _inside(blocks[(number - len(supports)).clamp_min(0)], state.signs.shape[1:])
    turned = block & ~moving[:, None, None, None, None]
    state.trial_signs[index] = torch.where(turned, -state.signs[index], state.signs[index])
    state.high[index] = state.radius[index]
    state.low[index] = 0
    state.step[index] = 0


def _inside(blocks: Tensor, shape: torch.Size) -> Tensor:
    """Return which values lie in each block, bool ``(A, C, k, H, W)``."""
    inside = torch.ones((), dtype=torch.bool, device=blocks.device)
    for axis, extent in enumerate(shape):
        place = torch.arange(extent, device=blocks.device)
        along = (place >= blocks[:, axis, :1]) & (place < blocks[:, axis, 1:])
        inside = inside & along.reshape(-1, *(extent if other == axis else 1 for other in range(4)))
    return inside


def _proposals(clips: Tensor, count: int, most: int) -> tuple[Tensor, Tensor]:
    """Return frames to try ``(M, k)``, and blocks ``(N, 4, 2)``: from where to where along C, k, H and W."""
    channels, total, height, width = clips.shape[1:]
    starts = torch.linspace(0, total - count, min(_WINDOWS, total - count + 1)).round().long()
    supports = starts[:, None] + torch.arange(count)
    if 1 < count < total:
        supports = torch.cat([torch.linspace(0, total - 1, count).round().long()[None], supports])
    return supports, torch.tensor(_blocks((channels, count, height, width), most))


def _blocks(shape: tuple[int, ...], most: int) -> list[_Block]:
    """Return blocks from coarse to fine, at most ``most``: each axis' start and stop."""
    parts, blocks = [1] * len(shape), list[_Block]()
    while True:
        cuts = [
            [(i * extent // count, (i + 1) * extent // count) for i in range(count)]
            for extent, count in zip(shape, parts, strict=True)
        ]
        blocks += islice(product(*cuts), most - len(blocks))
        lengths = [extent / count for extent, count in zip(shape, parts, strict=True)]
        axis = next((axis for axis in (1, 2 if lengths[2] >= lengths[3] else 3, 0) if lengths[axis] > 1), None)
        if axis is None or len(blocks) >= most:
            return blocks
        parts[axis] = min(2 * parts[axis], shape[axis])
