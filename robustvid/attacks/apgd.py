"""Auto-PGD: steepest ascent with momentum that finds its own step size, untargeted and towards many targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustvid.attacks.best import RESTART, Best, only_transfers, put
from robustvid.attacks.goal import Goal, Target, make_goal
from robustvid.attacks.gradient import Oracle, Problem, begin, check_counts, expected, salient_frames
from robustvid.budget import Budget

_MOMENTUM = 0.75  # share of the new step; the rest continues the last one


def apgd(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 100,
    restarts: int = 1,
    loss: str = "cross-entropy",
    rho: float = 0.75,
    target: Target = None,
    eot: int = 1,
) -> Tensor:
    """Climb with momentum, halving the step and going back to the best point whenever progress stalls.

    z = P_S(x_k + η·s(∇L(x_k)));  x_{k+1} = P_S(x_k + a(z - x_k) + (1 - a)(x_k - x_{k-1})), a = 0.75 (1 at k = 0),
    η = 2ε at first. At checkpoints, 0.22 K steps in and then ever closer, η is halved and x_k set to the best point
    if the loss rose in at most ρ of the steps since the last checkpoint, or if neither η nor the best loss changed.
    As in the authors' code, the first window counts a loss above 0 as one rise more.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be; P_S and s are its projection and its steepest point.
        seeds: int64 ``(B,)``, one for each clip's random start.
        steps: gradient steps K.
        restarts: independent starts; only clips still standing are tried again.
        loss: ``cross-entropy``, ``dlr`` (the margin with two classes) or ``margin``.
        rho: ρ.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.
        eot: passes that each gradient is averaged over, for models that answer at random.

    Returns:
        Adversarial clips, same shape. Costs at most restarts · (K + 1) forwards and restarts · K backwards a clip, less
        as soon as the clip is broken; one more of each with ``budget.frames``; gradients cost ``eot`` times that.

    Raises:
        CardError: steps or restarts below 1.

    References:
        Croce & Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
        Attacks", arXiv:2003.01690, algorithm 1.
    """
    check_counts(steps=steps, restarts=restarts)
    goal = make_goal(model, clips, labels, seeds, loss, target)
    best = Best(clips)
    _attempt(model, Problem(clips, goal, budget, seeds, None), best, _Climb(steps, rho, expected(eot)), restarts)
    return best.clips


def apgd_t(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 100,
    targets: int = 9,
    restarts: int = 1,
    loss: str = "dlr",
    rho: float = 0.75,
    eot: int = 1,
) -> Tensor:
    """Run Auto-PGD towards each of the most likely wrong classes in turn; any wrong answer ends it.

    The update is that of :func:`apgd` on the targeted loss, -(z_y - z_t) / (z_π1 - (z_π3 + z_π4) / 2) for ``dlr``, t
    being the wrong class of the largest logit on the clean clip, then that of the second largest, and so on.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, one for each clip's random starts.
        steps: gradient steps towards each target.
        targets: how many wrong classes are tried, at most K - 1.
        restarts: independent starts for each target.
        loss: ``dlr`` (with fewer than four classes the targeted margin), ``margin`` or ``cross-entropy``.
        rho: as in :func:`apgd`.
        eot: passes that each gradient is averaged over.

    Returns:
        Adversarial clips, same shape. Costs at most 1 + targets · restarts · (steps + 1) forwards and targets ·
        restarts · steps backwards a clip, less as soon as the clip is broken; with ``budget.frames`` one more of each
        for every target.

    Raises:
        CardError: steps, restarts or targets below 1.

    References:
        Croce & Hein, arXiv:2003.01690, section 4.2.
    """
    check_counts(steps=steps, restarts=restarts, targets=targets)
    with torch.no_grad():
        logits = model(clips)
    best = Best(clips)
    best.score(torch.arange(len(clips), device=clips.device), clips, logits, Goal(labels))
    ranking = logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
    climb = _Climb(steps, rho, expected(eot))
    for rank in range(min(targets, logits.shape[1] - 1)):
        goal = Goal(labels, loss, ranking[:, rank])
        _attempt(model, Problem(clips, goal, budget, seeds + 1 + rank, None), best, climb, restarts)
    return best.clips


def apgd_shrink(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 30,
    balls: int = 3,
    restarts: int = 1,
    loss: str = "margin",
    rho: float = 0.75,
    eot: int = 1,
) -> Tensor:
    """Run Auto-PGD in balls larger than the budget first, each time from where the last ball left off.

    The update is that of :func:`apgd`, in the budget with its radii times 3, then 2, then 1. A ball is begun at the
    point of largest gap of the one before, projected into it. Where the loss is rugged, a climb that is held to the
    budget from the start ends in a lower maximum.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, one for each clip's random start.
        steps: gradient steps in each ball.
        balls: how many; the largest has the budget's radii so many times.
        restarts: independent starts; only clips still standing are tried again.
        loss: ``margin``, ``dlr`` or ``cross-entropy``.
        rho: as in :func:`apgd`.
        eot: passes that each gradient is averaged over.

    Returns:
        Adversarial clips, same shape. Costs at most restarts · balls · (steps + 1) forwards and restarts · balls ·
        steps backwards a clip, less as soon as the clip is broken in the last ball; one more of each with
        ``budget.frames``; gradients cost ``eot`` times that.

    Raises:
        CardError: steps, balls or restarts below 1.

    References:
        Croce & Hein, "Mind the box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers", arXiv:2103.01208,
        who do so for l1.
    """
    check_counts(steps=steps, balls=balls, restarts=restarts)
    best, climb = Best(clips), _Climb(steps, rho, expected(eot), balls)
    _attempt(model, Problem(clips, Goal(labels, loss), budget, seeds, None), best, climb, restarts)
    return best.clips


class _Climb(NamedTuple):
    steps: int
    rho: float
    oracle: Oracle
    balls: int = 1


class _State(NamedTuple):
    """What one climb knows of each clip; every tensor's first axis is the clip.

    ``top`` is the point of the highest loss, with ``top_grad`` the only memory that is written to; ``share`` is η / ε;
    ``rises`` counts the steps since the last checkpoint in which the loss rose; ``checked`` is the highest loss at that
    checkpoint, ``halved`` what it decided.
    """

    iterate: Tensor
    previous: Tensor
    grad: Tensor
    value: Tensor
    top: Tensor
    top_grad: Tensor
    top_value: Tensor
    share: Tensor
    rises: Tensor
    checked: Tensor
    halved: Tensor

    def select(self, index: Tensor) -> _State:
        return _State(*(tensor[index] for tensor in self))


def _attempt(model: nn.Module, problem: Problem, best: Best, climb: _Climb, restarts: int) -> None:
    """Climb from ``restarts`` random starts, each time with the clips still standing in ``best``."""
    standing = best.standing()
    if len(standing) and problem.budget.frames is not None:
        mask = problem.clips.new_ones(len(problem.clips), 1, problem.clips.shape[2], 1, 1)
        part = problem.select(standing)
        mask[standing] = salient_frames(model, part.clips, part.goal, part.budget)
        problem = problem._replace(mask=mask)
    for restart in range(restarts):
        standing = best.standing()
        if not len(standing):
            return
        part = problem._replace(seeds=problem.seeds + restart * RESTART).select(standing)
        start = None
        for ball in range(climb.balls, 1, -1):
            larger = part._replace(budget=part.budget.scaled(ball))
            start = _climb(model, larger, climb, start, to_the_end=True).clips
        run = _climb(model, part, climb, start)
        best.offer(standing, run.clips, run.gap, run.met)


def _climb(
    model: nn.Module, problem: Problem, climb: _Climb, start: Tensor | None = None, *, to_the_end: bool = False
) -> Best:
    """Climb once, from ``start`` projected or else a random point."""
    best, to_the_end = Best(problem.clips), to_the_end or only_transfers(model)
    active = torch.arange(len(problem.clips), device=problem.clips.device)
    windows = _windows(climb.steps)
    state, since = None, 0
    for step in range(climb.steps):
        if state is not None:
            iterate = _move(state, problem, first=step == 1)
        else:
            iterate = begin(problem) if start is None else _inside_(start, problem)
        grad, logits = climb.oracle(model, iterate, problem.goal, problem.seeds, step)
        standing = best.score(active, iterate, logits, problem.goal)
        value = problem.goal.value(logits)
        state = _begin_state(iterate, grad, value) if state is None else _note(state, iterate, grad, value)
        if len(standing) < len(active) and not to_the_end:
            active, problem, state = active[standing], problem.select(standing), state.select(standing)
        if not len(active):
            return best
        since += 1 if step else 0
        if since == windows[0]:
            state, since = _checkpoint(state, since, climb.rho), 0
            windows = windows[1:]
    assert state is not None
    with torch.no_grad():
        iterate = _move(state, problem, first=climb.steps == 1)
        best.score(active, iterate, model(iterate), problem.goal)
    return best


def _windows(steps: int) -> list[int]:
    """Return how many steps lie between checkpoints: 0.22 K, then less by 0.03 K each time, at least 0.06 K."""
    window, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    lengths = [window]
    while sum(lengths) <= steps:
        lengths.append(max(lengths[-1] - less, least))
    return lengths


def _begin_state(iterate: Tensor, grad: Tensor, value: Tensor) -> _State:
    nothing = torch.zeros_like(value)
    share = torch.full_like(value, 2.0)
    rises = torch.zeros_like(value, dtype=torch.int64)
    halved = torch.ones_like(value, dtype=torch.bool)
    # The last value is 0 at first, whatever the loss of the start: see the docstring of apgd.
    return _State(iterate, iterate, grad, nothing, iterate.clone(), grad.clone(), value, share, rises, value, halved)


def _move(state: _State, problem: Problem, *, first: bool) -> Tensor:
    """Return the next iterate; in one tensor of its own, because new ones cost more than the arithmetic."""
    grad = state.grad if problem.mask is None else state.grad * problem.mask
    point = problem.budget.steepest(grad, _column(state.share)).add_(state.iterate)
    point = _inside_(point, problem)
    if not first:  # x + a (z - x) + (1 - a) (x - x')
        point.mul_(_MOMENTUM).add_(state.iterate, alpha=2 * (1 - _MOMENTUM)).sub_(state.previous, alpha=1 - _MOMENTUM)
        point = _inside_(point, problem)
    return point


def _inside_(point: Tensor, problem: Problem) -> Tensor:
    """Return the point projected, in the memory of ``point``."""
    return problem.budget.project_(point.sub_(problem.clips)).add_(problem.clips).clamp_(0, 1)


def _note(state: _State, iterate: Tensor, grad: Tensor, value: Tensor) -> _State:
    better = value > state.top_value
    rows = better.nonzero().squeeze(1)
    put(state.top, rows, iterate, rows)
    put(state.top_grad, rows, grad, rows)
    return state._replace(
        iterate=iterate,
        previous=state.iterate,
        grad=grad,
        value=value,
        top_value=torch.where(better, value, state.top_value),
        rises=state.rises + (value > state.value),
    )


def _checkpoint(state: _State, window: int, rho: float) -> _State:
    stuck = ~state.halved & (state.checked >= state.top_value)
    halve = (state.rises <= rho * window) | stuck
    rows, iterate, grad = halve.nonzero().squeeze(1), state.iterate.clone(), state.grad.clone()
    put(iterate, rows, state.top, rows)
    put(grad, rows, state.top_grad, rows)
    return state._replace(
        iterate=iterate,
        grad=grad,
        share=torch.where(halve, state.share / 2, state.share),
        rises=torch.zeros_like(state.rises),
        checked=state.top_value,
        halved=halve,
    )


def _column(per_clip: Tensor) -> Tensor:
    return per_clip[:, None, None, None, None]
