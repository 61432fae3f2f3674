"""Orders of the frames of one clip: which ones exist, what they cost, and which gains the most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustvid.budget import Budget, frames_touched

Array = np.ndarray[Any, np.dtype[Any]]  # an order is int (T,): position t shows frame order[t]
_ROUNDING = 1e-9  # sums of shares are this exact
_BISECTIONS = 24


class Mode(NamedTuple):
    """A kind of order.

    Attributes:
        reach: whether position t may show frame t + shift, given the displacement.
        solve: returns the order with the largest sum of a table of gains ``(T, T)``; -inf marks what cannot be shown.
        moves: returns the orders next to one, ``(M, T)``, itself among them, given what is allowed.
    """

    reach: Callable[[Array, int], Array]
    solve: Callable[[Array], Array]
    moves: Callable[[Array, Array], Array]


class Rules(NamedTuple):
    """What the budget says of one clip.

    Attributes:
        allowed: bool ``(T, T)``: whether position t may show frame s.
        shares: ``(N, T, T)``: the share that this takes of each of N constraints on the clip as a whole.
    """

    allowed: Array
    shares: Array

    def hold(self, orders: Array) -> Array:
        """Return whether each order ``(..., T)`` is inside the budget."""
        places = np.arange(orders.shape[-1])
        whole = self.shares[:, places, orders].sum(-1)
        return np.asarray(self.allowed[places, orders].all(-1) & (whole <= 1 + _ROUNDING).all(0))

    def near(self, order: Array, radius: int) -> Rules:
        """Return these rules for orders that differ from ``order`` in at most ``radius`` positions."""
        differs = (np.arange(len(order)) != order[:, None]) / radius
        return Rules(self.allowed, np.concatenate([self.shares, differs[None]]))


def make_rules(clip: Tensor, budget: Budget, mode: Mode, displacement: int) -> Rules:
    """Measure every frame in the place of every other one within reach.

    Args:
        clip: ``(1, C, T, H, W)``.
        budget: of this clip.
        mode: which frames are within reach.
        displacement: how many places a frame may move.
    """
    frames = clip.shape[2]
    shifts = np.arange(frames) - np.arange(frames)[:, None]
    allowed = mode.reach(shifts, displacement)
    shares = np.zeros((2, frames, frames))
    for shift in np.unique(shifts[allowed]).tolist():
        places = np.arange(max(0, -shift), frames - max(0, shift))
        delta = (clip[0, :, places + shift] - clip[0, :, places]).transpose(0, 1).unsqueeze(2)
        allowed[places, places + shift], shares[:, places, places + shift] = _price(delta, budget)
    return Rules(allowed & (shares <= 1).all(0), shares)


def best_order(gains: Array, rules: Rules, mode: Mode, otherwise: Array) -> Array:
    """Return an order of large gain within the rules.

    Without constraints on the clip as a whole it is the order of largest gain. With them, what a frame takes of them
    has a price, the lowest at which the order of largest gain after payment satisfies them (Lagrange); from there it
    goes on to the best order next to it, while that gains more. This need not be the largest gain of all.

    Args:
        gains: ``(T, T)``, finite.
        rules: what orders there are.
        mode: of order.
        otherwise: returned where no price satisfies the constraints.
    """
    open_gains = np.where(rules.allowed, gains, -np.inf)
    order = mode.solve(open_gains)
    if rules.hold(order):
        return order
    shares, found = rules.shares.sum(0), otherwise
    low, high = 0.0, 4.0 * len(gains) * float(np.abs(gains).max())
    for _ in range(_BISECTIONS):
        price = (low + high) / 2
        order = mode.solve(open_gains - price * shares)
        if rules.hold(order):
            high, found = price, order
        else:
            low = price
    return _polished(found, gains, rules, mode)


def _polished(order: Array, gains: Array, rules: Rules, mode: Mode) -> Array:
    places = np.arange(len(order))
    while True:
        moves = mode.moves(order, rules.allowed)
        gain = np.where(rules.hold(moves), gains[places, moves].sum(1), -np.inf)
        if gain.max() <= gains[places, order].sum() + _ROUNDING * np.abs(gains).max():
            return order
        order = moves[gain.argmax()]


def _price(delta: Tensor, budget: Budget) -> tuple[Array, Array]:
    """Return for single frames ``(N, C, 1, H, W)`` whether they are allowed, and their shares ``(2, N)``."""
    alone = budget.select(torch.zeros(len(delta), dtype=torch.long))
    allowed, shares = np.ones(len(delta), dtype=bool), np.zeros((2, len(delta)))
    if alone.frame is not None:
        allowed = (replace(alone, clip=None, frames=None).size(delta) <= 1).cpu().numpy()
    if alone.clip is not None:
        shares[0] = replace(alone, frame=None, frames=None).size(delta).square().cpu().numpy()
    if alone.frames is not None:
        shares[1] = (frames_touched(delta).double() / torch.as_tensor(alone.frames).to(delta.device)).cpu().numpy()
    return allowed, shares


def _assignment(gains: Array) -> Array:
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(gains, maximize=True)[1])


def _each_best(gains: Array) -> Array:
    return np.asarray(gains.argmax(1))


def _ascending(gains: Array) -> Array:
    """Return the best order that leaves frames out: each frame is followed by a later one, the last by itself."""
    frames = len(gains)
    follows = np.triu(np.ones((frames, frames), dtype=bool), 1)
    follows[-1, -1] = True
    value, after = gains[-1], []
    for row in gains[-2::-1]:
        ahead = np.where(follows, value, -np.inf)
        after.append(ahead.argmax(1))
        value = row + ahead.max(1)
    order = [int(value.argmax())]
    for chosen in reversed(after):
        order.append(int(chosen[order[-1]]))
    return np.array(order)


def _trades(order: Array, allowed: Array) -> Array:
    """Let each position show each frame that it may; the one that has shown it takes over what this one showed."""
    place, frame = allowed.nonzero()
    moves, rows = np.tile(order, (len(place), 1)), np.arange(len(place))
    moves[rows, order.argsort()[frame]] = order[place]
    moves[rows, place] = frame
    return moves


def _repeats(order: Array, allowed: Array) -> Array:
    """Let each position show each frame that it may."""
    place, frame = allowed.nonzero()
    moves = np.tile(order, (len(place), 1))
    moves[np.arange(len(place)), place] = frame
    return moves


def _skips(order: Array, _allowed: Array) -> Array:
    """Move up, or back, by one frame what any number of successive positions show."""
    last, places = len(order) - 1, np.arange(len(order))
    begin, end = np.triu_indices(len(order))
    some = (places >= begin[:, None]) & (places <= end[:, None])
    moves = np.concatenate([order[None], np.clip(order + some, 0, last), np.clip(order - some, 0, last)])
    follows = (moves[:, 1:] > moves[:, :-1]) | (moves[:, 1:] == last)
    return np.asarray(moves[follows.all(1)])


MODES = {
    "shuffle": Mode(lambda shift, bound: np.abs(shift) <= bound, _assignment, _trades),
    "freeze": Mode(lambda shift, bound: (shift <= 0) & (-shift <= bound), _each_best, _repeats),
    "drop": Mode(lambda shift, bound: (shift >= 0) & (shift <= bound), _ascending, _skips),
}
