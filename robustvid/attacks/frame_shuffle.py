"""Frame shuffle, freeze and drop: no pixel is changed, frames move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from robustvid.attacks.best import Best, only_transfers
from robustvid.attacks.goal import Goal, Target, make_goal
from robustvid.attacks.gradient import loss_gradient
from robustvid.attacks.orders import MODES, Array, Mode, best_order, make_rules
from robustvid.budget import Budget
from robustvid.errors import CardError
from robustvid.registry import did_you_mean

_TRIES = 64  # random moves drawn until one is new and inside the budget


def frame_shuffle(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    mode: str = "shuffle",
    displacement: int = 2,
    queries: int = 100,
    gradients: int = 10,
    loss: str = "margin",
    target: Target = None,
) -> Tensor:
    """Show the frames of a clip in another order: x'_t = x_{π(t)} with |π(t) - t| ≤ ``displacement``.

    To first order, going from the best order so far to π gains Σ_t ⟨g_t, x_{π(t)} - x'_t⟩, g = ∇L at x'. The π with
    the largest sum among those that differ from the best order in at most r positions is asked about: an assignment
    problem, solved exactly. r doubles when the model confirms the gain and halves when it does not. After
    ``gradients`` of these queries come random moves, one to three at a time (two frames trade places; another frame
    is repeated; another one is left out), kept where the model confirms them.

    A frame that moves is a perturbation as large as two frames are different: ``Budget("linf", frame=1)`` allows any
    order, and the clip as it is lies inside every budget. The bounds on the whole clip (``frames``, l2 ``clip``, r)
    enter the assignment at a price, see :func:`~robustvid.attacks.orders.best_order`.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation x' - x may be.
        seeds: int64 ``(B,)``, for the random moves.
        mode: ``shuffle``: π is a permutation; ``freeze``: t - ``displacement`` ≤ π(t) ≤ t, frames are repeated later;
            ``drop``: up to ``displacement`` frames are left out, the rest moves up and the last one repeats.
        displacement: how many places a frame may move.
        queries: the most forwards that a clip costs.
        gradients: how many of them, at most, come with a backward and a choice by first order.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Clips made of the same frames, same shape. Costs at most ``queries`` forwards and ``gradients`` backwards a
        clip, less as soon as the clip is broken or no order is left; one more forward with a ``target``.

    Raises:
        CardError: no such mode, a negative displacement, or no queries.

    References:
        Frank & Wolfe, "An algorithm for quadratic programming", Naval Research Logistics 3 (1956): the step by linear
        maximisation; here its points are the orders themselves, and a model without time is left unharmed.
    """
    _check(mode, displacement, queries)
    goal = make_goal(model, clips, labels, seeds, loss, target)
    searches = [
        _Search(clips[i], budget.select(torch.tensor([i])), MODES[mode], displacement, seed)
        for i, seed in enumerate(seeds.tolist())
    ]
    best, active = Best(clips), torch.arange(len(clips), device=clips.device)
    for query in range(queries):
        asked = [searches[i] for i in active.tolist()]
        shown, own, before = torch.stack([search.shown() for search in asked]), goal.select(active), best.gap[active]
        grad, logits = _ask(model, shown, own, backward=query < gradients)
        standing = best.score(active, shown, logits, own)
        for search, better, own_grad in zip(asked, (best.gap[active] > before).tolist(), grad, strict=True):
            search.answer(own_grad, better=better)
        kept = range(len(active)) if only_transfers(model) else standing.tolist()
        going = [place for place in kept if asked[place].choose(by_gain=query + 1 < gradients)]
        if not going:
            break
        active = active[going]
    return best.clips


class _Search:
    """The orders of one clip: the best one, the one to ask about next, and all that were asked about."""

    def __init__(self, clip: Tensor, budget: Budget, mode: Mode, displacement: int, seed: int) -> None:
        frames = clip.shape[1]
        self.clip, self.mode = clip, mode
        self.rules = make_rules(clip[None], budget, mode, displacement)
        self.generator = torch.Generator().manual_seed(seed)
        self.order = self.best = np.arange(frames)
        self.asked = {tuple(self.order)}
        self.gains = np.zeros((frames, frames))
        self.radius = frames

    def shown(self) -> Tensor:
        """Return the clip in the order to ask about."""
        return self.clip[:, torch.from_numpy(self.order).to(self.clip.device)]

    def answer(self, grad: Tensor | None, *, better: bool) -> None:
        """Note whether the order that was asked about is the best one now, with the gradient there if it is known."""
        if not better:
            self.radius //= 2
            return
        self.best, self.radius = self.order, max(2, 2 * self.radius)
        if grad is not None:
            self.gains = _gains(grad, self.clip)

    def choose(self, *, by_gain: bool) -> bool:
        """Choose what to ask about next; return whether there is anything new to ask about."""
        if self.rules.allowed.sum() == len(self.order):  # every frame stays where it is
            return False
        order = self._largest_gain() if by_gain else None
        order = self._random_move() if order is None else order
        if order is None:
            return False
        self.order = order
        self.asked.add(tuple(order))
        return True

    def _largest_gain(self) -> Array | None:
        """Return the order of largest gain near the best one; nearer if that was asked about before."""
        while self.radius:
            order = best_order(self.gains, self.rules.near(self.best, self.radius), self.mode, self.best)
            if tuple(order) not in self.asked:
                return order
            self.radius //= 2
        return None

    def _random_move(self) -> Array | None:
        for _ in range(_TRIES):
            order = self.best
            for _ in range(1 + self._draw(3)):
                moves = self.mode.moves(order, self.rules.allowed)
                order = moves[self._draw(len(moves))]
            if tuple(order) not in self.asked and self.rules.hold(order):
                return order
        return None

    def _draw(self, limit: int) -> int:
        return int(torch.randint(limit, (), generator=self.generator))


def _ask(model: nn.Module, clips: Tensor, goal: Goal, *, backward: bool) -> tuple[Sequence[Tensor | None], Tensor]:
    """Return the gradient of each clip, if it is wanted, and the logits."""
    if backward:
        grad, logits = loss_gradient(model, clips, goal)
        return list(grad), logits
    with torch.no_grad():
        return [None] * len(clips), model(clips)


def _gains(grad: Tensor, clip: Tensor) -> Array:
    """Return ⟨g_t, x_s⟩ for every position t and frame s, ``(T, T)``; what position t shows now matters to none."""
    rows, frames = (tensor.transpose(0, 1).flatten(1).double() for tensor in (grad, clip))
    table = rows @ frames.T
    return np.asarray((table - table.mean(1, keepdim=True)).cpu().numpy())


def _check(mode: str, displacement: int, queries: int) -> None:
    if mode not in MODES:
        raise CardError(f"no mode {mode!r}.{did_you_mean(mode, MODES)} There are: {', '.join(MODES)}.")
    if displacement < 0 or queries < 1:
        raise CardError(f"displacement={displacement}, queries={queries}: give 0 or more places, and at least 1 query")
