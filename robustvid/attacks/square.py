"""Square for video: random search over blocks of space and time, by scores alone."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustvid.attacks.best import Best, only_transfers, put
from robustvid.attacks.goal import Target, make_goal
from robustvid.attacks.gradient import Problem
from robustvid.budget import Budget, frame_l2
from robustvid.errors import CardError, UnknownNameError
from robustvid.registry import did_you_mean

SHAPES = ("cuboid", "tube", "fold")
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # proposals after which p halves, of 10 000
_TILES = 5  # bumps along height and width with which l2 starts
_LEAST = 3  # a bump for l2 has at least so many pixels along height and width
_EXCHANGE = 2  # with few frames, every second proposal exchanges one
_TINY = 1e-12
Size = tuple[int, int, int]


def square(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    queries: int = 1000,
    shape: str = "cuboid",
    p_init: float = 0.8,
    resc_schedule: bool = False,
    loss: str = "margin",
    target: Target = None,
) -> Tensor:
    """Change random blocks of space and time and keep what brings the clip nearer to a wrong answer.

    x_0 = clamp(x + stripes that do not change in time). Then, per query, a block of a share p of the clip is drawn for
    each clip: for linf it becomes ±ε with one sign for each channel, for l2 the mass of a second block (in the same
    frames where the budget bounds frames) moves to the first as a bump beside its negative; the change is kept unless
    max_{k≠y} z_k - z_y falls. p falls from ``p_init`` by halves after 10, 50, 200, 500, ... proposals. With
    ``budget.frames`` blocks lie in k frames drawn at random, and every second proposal tries to exchange one of them.

    The paper has images and draws one block for the whole batch. ``shape`` chooses what a block is in time: ``cuboid``
    lasts T, T/2, T/4, ..., 1 frames in turn, its height and width such that its share stays p; ``tube`` lasts for all
    frames; ``fold`` too, with a sign for each, as if time were channels. Lengths in turn serve models that average over
    time and models of motion alike; one length for all, p^{1/3} T, left three times as many clips standing on the
    latter (docs/results.md).

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1]; no gradient is asked of it.
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, one for each clip's draws.
        queries: clips shown to the model for each clip, the clean one among them.
        shape: ``cuboid``, ``tube`` or ``fold``.
        p_init: share of the clip that the first proposals change.
        resc_schedule: halve p as if ``queries`` were the paper's 10,000, rather than after so many proposals.
        loss: ``margin``, ``cross-entropy`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most ``queries`` forwards and no backward a clip, less as soon as it is
        broken.

    Raises:
        CardError: queries below 1, or a share outside (0, 1].
        UnknownNameError: no such shape or loss.

    References:
        Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via random search",
        arXiv:1912.00049.
    """
    settings = _Settings(queries, shape, p_init, resc_schedule)
    best = Best(clips)
    with torch.no_grad():
        logits = model(clips)
        goal = make_goal(lambda _: logits, clips, labels, seeds, loss, target)
        places = torch.arange(len(clips), device=clips.device)
        standing = best.score(places, clips, logits, goal)
        active = places if only_transfers(model) else standing
        problem = Problem(clips, goal, replace(budget, frames=None), seeds, None)
        counts = _frame_counts(budget, clips)
        for count in counts[active].unique().tolist():
            group = active[counts[active] == count]
            _search(model, problem.select(group), count, settings, best, group)
    return best.clips


@dataclass(frozen=True)
class _Settings:
    """How to search; see :func:`square`."""

    queries: int
    shape: str
    p_init: float
    resc_schedule: bool

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise CardError(f"queries={self.queries}: give at least 1")
        if self.shape not in SHAPES:
            hint = did_you_mean(self.shape, SHAPES)
            raise UnknownNameError(f"no shape named {self.shape!r}.{hint} There are: {', '.join(SHAPES)}.")
        if not 0 < self.p_init <= 1:
            raise CardError(f"p_init={self.p_init}: give the share of the clip that changes first, above 0, at most 1")

    def share(self, proposal: int) -> float:
        """Return p, the share of the clip that a proposal changes; the first proposal is number 0."""
        done = proposal * 10_000 / self.queries if self.resc_schedule else proposal
        return float(self.p_init / 2.0 ** bisect_left(_HALVINGS, done))

    def size(self, share: float, turn: int, room: Size, least: int = 1) -> Size:
        """Return the block of this share of ``room`` (frames, height, width): its frames, height and width."""
        frames, height, width = room
        length = frames >> turn % frames.bit_length() if self.shape == "cuboid" else frames
        side = min(1.0, share * frames / length) ** 0.5
        return length, *(min(max(round(side * extent), least), extent) for extent in (height, width))


class _State(NamedTuple):
    """The search for some clips: perturbations, the frames they may change (A, k), and the loss reached."""

    delta: Tensor
    frames: Tensor
    value: Tensor

    def select(self, index: Tensor) -> _State:
        return _State(*(tensor[index] for tensor in self))


class _Moves(NamedTuple):
    """What proposals are made from: the problem, the settings, and a stream of random numbers for each clip."""

    problem: Problem
    settings: _Settings
    streams: list[torch.Generator]

    def select(self, index: Tensor) -> _Moves:
        streams = [self.streams[i] for i in index.tolist()]
        return _Moves(self.problem.select(index), self.settings, streams)

    def uniform(self, *shape: int) -> Tensor:
        draws = torch.stack([torch.rand(shape, generator=stream) for stream in self.streams])
        return draws.to(self.problem.clips)

    def signs(self, *shape: int) -> Tensor:
        return 2 * self.uniform(*shape).round() - 1

    def starts(self, size: Size, room: Size) -> Tensor:
        """Return where blocks begin, uniform over all places where they fit, int64 ``(A, 3)``."""
        free = torch.tensor([whole - part + 1 for whole, part in zip(room, size, strict=True)]).to(self.problem.clips)
        return (self.uniform(3) * free).floor().minimum(free - 1).long()

    @property
    def inside_frames(self) -> bool:
        """Return whether l2 mass stays in its frame: where frames are bounded, or are channels."""
        return self.problem.budget.clip is None or self.settings.shape == "fold"


def _frame_counts(budget: Budget, clips: Tensor) -> Tensor:
    frames = clips.shape[2]
    wanted = frames if budget.frames is None else budget.frames
    return torch.as_tensor(wanted, device=clips.device).expand(len(clips)).clamp_max(frames)


def _search(  # noqa: PLR0917  the parts of one search
    model: nn.Module, problem: Problem, count: int, settings: _Settings, best: Best, places: Tensor
) -> None:
    """Search with perturbations of ``count`` frames; ``places`` are those of the problem's clips in ``best``."""
    streams = [torch.Generator().manual_seed(seed % 2**63) for seed in problem.seeds.tolist()]
    moves, transfers, state = _Moves(problem, settings, streams), only_transfers(model), None
    for proposal in range(settings.queries - 1):
        trial = _start(moves, count) if state is None else _propose(moves, state, proposal - 1)
        shown = (moves.problem.clips + trial.delta).clamp_(0, 1)
        logits = model(shown)
        # What the range cuts off is mass that l2 can spend elsewhere; for linf a block stays ±ε whatever is shown.
        delta = trial.delta if problem.budget.norm == "linf" else shown - moves.problem.clips
        trial = _State(delta, trial.frames, moves.problem.goal.value(logits))
        state = trial if state is None else _better(state, trial, moves.problem.goal.met(logits))
        standing = best.score(places, shown, logits, moves.problem.goal)
        if len(standing) < len(places) and not transfers:
            places, state, moves = places[standing], state.select(standing), moves.select(standing)
        if not len(places):
            return


def _better(state: _State, trial: _State, met: Tensor) -> _State:
    better = ((trial.value >= state.value) | met).nonzero().squeeze(1)  # ties too: a plateau is crossed, not sat on
    for old, new in zip(state, trial, strict=True):
        put(old, better, new, better)
    return state


def _start(moves: _Moves, count: int) -> _State:
    """Return stripes (linf) or a grid of bumps (l2) that are constant in time, in ``count`` frames drawn at random."""
    clips = moves.problem.clips
    channels, total, height, width = clips.shape[1:]
    order = torch.stack([torch.randperm(total, generator=stream)[:count].sort().values for stream in moves.streams])
    frames = order.to(clips.device)
    own = count if moves.settings.shape == "fold" else 1
    if moves.problem.budget.norm == "linf":
        pattern = moves.signs(channels, own, 1, width)
    else:
        pattern = _bumps(moves, (channels, own), (height, width))
    delta = torch.zeros_like(clips)
    whole = _Blocks(torch.zeros_like(frames[:, :1]).expand(-1, 3), (count, height, width), frames)
    whole.write(delta, pattern.expand(-1, -1, count, height, -1))
    return _State(moves.problem.budget.steepest(delta), frames, clips.new_zeros(len(clips)))


def _propose(moves: _Moves, state: _State, proposal: int) -> _State:
    turn = proposal
    if state.frames.shape[1] < state.delta.shape[2]:
        turn, rest = divmod(proposal, _EXCHANGE)
        if rest == 0:
            return _exchange(moves, state)
    linf, share = moves.problem.budget.norm == "linf", moves.settings.share(proposal)
    return _recolour(moves, state, share, turn) if linf else _move_mass(moves, state, share, turn)


def _exchange(moves: _Moves, state: _State) -> _State:
    """Move the perturbation of one frame, as it is, to a frame that does not change yet."""
    total, count = state.delta.shape[2], state.frames.shape[1]
    free = torch.ones(len(state.frames), total, device=state.frames.device).scatter_(1, state.frames, 0)
    closed = free.argsort(dim=1, descending=True, stable=True)
    draws = moves.uniform(2)
    slot = (draws[:, :1] * count).long().clamp_max(count - 1)
    new = closed.gather(1, (draws[:, 1:] * (total - count)).long().clamp_max(total - count - 1))
    old = state.frames.gather(1, slot)
    delta, row = state.delta.clone(), torch.arange(len(old), device=old.device)
    delta[row, :, new[:, 0]] = delta[row, :, old[:, 0]]
    delta[row, :, old[:, 0]] = 0
    return state._replace(delta=delta, frames=state.frames.scatter(1, slot, new).sort(dim=1).values)


def _recolour(moves: _Moves, state: _State, share: float, turn: int) -> _State:
    """Set a block to ±ε; where it has that value already, to the opposite."""
    channels, _, height, width = state.delta.shape[1:]
    room = (state.frames.shape[1], height, width)
    size = moves.settings.size(share, turn, room)
    starts = moves.starts(size, room)
    block = _radius(moves, state) * moves.signs(channels, size[0] if moves.settings.shape == "fold" else 1, 1, 1)
    blocks, delta = _Blocks(starts, size, state.frames), state.delta.clone()
    idle = (blocks.read(delta) == block).flatten(1).all(1)  # it is there already: its opposite
    blocks.write(delta, torch.where(idle[:, None, None, None, None], -block, block))
    return state._replace(delta=delta)


def _move_mass(moves: _Moves, state: _State, share: float, turn: int) -> _State:
    """Give a block the mass of a second one and what is spare, as a bump beside its negative on top of what it held."""
    budget, inside = moves.problem.budget, moves.inside_frames
    channels, _, height, width = state.delta.shape[1:]
    room = (state.frames.shape[1], height, width)
    size = moves.settings.size(share, turn, room, _LEAST)
    axes = (3, 4) if inside else (2, 3, 4)
    first, second = moves.starts(size, room), moves.starts(size, room)
    if inside:
        second[:, 0] = first[:, 0]
    one, two = (_Blocks(start, size, state.frames) for start in (first, second))
    delta, spare = state.delta.clone(), _spare(moves, state, one.times)
    old = one.read(delta)
    mass = old.square().sum(axes, keepdim=True)
    old = old / mass.sqrt().clamp_min(_TINY)
    nothing = delta.new_zeros(1, 1, 1, 1, 1)
    one.write(delta, nothing)
    mass = mass + two.read(delta).square().sum(axes, keepdim=True) + spare
    two.write(delta, nothing)
    upright = moves.uniform(1, 1, 1, 1) < 0.5
    one_way, other_way = (_halves(size[1:], axis).to(delta).expand(size) for axis in (0, 1))
    bump = torch.where(upright, one_way, other_way)
    bump = bump / bump.square().sum(axes, keepdim=True).sqrt()
    new = bump * moves.signs(channels, size[0] if moves.settings.shape == "fold" else 1, 1, 1) + old
    one.write(delta, new / new.square().sum(axes, keepdim=True).sqrt().clamp_min(_TINY) * mass.sqrt())
    return state._replace(delta=budget.steepest(delta))


def _spare(moves: _Moves, state: _State, times: Tensor) -> Tensor:
    """Return the squared norm that the budget leaves unused, for each channel of a block in the frames ``times``."""
    budget, channels = moves.problem.budget, state.delta.shape[1]
    used = frame_l2(state.delta).square()
    if budget.clip is None:
        spare = (_radius(moves, state).square() - used).clamp_min(0)
        return spare[:, 0, :, 0, 0].gather(1, times)[:, None, :, None, None] / channels
    whole = _radius(moves, state, replace(budget, frame=None)).square()
    spare = (whole - used.sum(2, keepdim=True)).clamp_min(0) / channels
    return spare / state.frames.shape[1] if moves.inside_frames else spare


def _radius(moves: _Moves, state: _State, budget: Budget | None = None) -> Tensor:
    """Return each clip's radius, ``(A, 1, 1, 1, 1)``: the size of the steepest point of a single value."""
    return (budget or moves.problem.budget).steepest(torch.ones_like(state.delta[:, :1, :1, :1, :1]))


def _bumps(moves: _Moves, lead: tuple[int, int], room: tuple[int, int]) -> Tensor:
    """Return a grid of bumps beside their negatives with random signs and directions, ``(A, *lead, height, width)``."""
    height, width = (max(1, extent // _TILES) for extent in room)
    rows, columns = room[0] // height, room[1] // width
    signs = moves.signs(*lead, rows, columns).repeat_interleave(height, -2).repeat_interleave(width, -1)
    upright = moves.uniform(1, 1, rows, columns).repeat_interleave(height, -2).repeat_interleave(width, -1) < 0.5
    one, other = (_halves((height, width), axis).to(signs).repeat(rows, columns) for axis in (0, 1))
    bumps = signs * torch.where(upright, one, other)
    top, left = (room[0] - rows * height) // 2, (room[1] - columns * width) // 2
    canvas = bumps.new_zeros(*bumps.shape[:3], *room)
    canvas[..., top : top + rows * height, left : left + columns * width] = bumps
    return canvas


def _halves(size: tuple[int, ...], axis: int) -> Tensor:
    """Return a bump beside its negative, of norm 1."""
    cut = size[axis] // 2
    pieces = [list(size), list(size)]
    pieces[0][axis], pieces[1][axis] = cut, size[axis] - cut
    pattern = torch.cat([_bump(*pieces[0]), -_bump(*pieces[1])], axis)
    return torch.as_tensor(pattern / pattern.norm())


def _bump(height: int, width: int) -> Tensor:
    """Return nested rectangles around the middle, steeper towards it: Σ_{k ≥ r} 1/(k+1)² at distance r."""
    rows, columns = ((torch.arange(extent) - extent // 2).abs() for extent in (height, width))
    distance = torch.maximum(rows[:, None], columns)
    terms = 1 / torch.arange(1, max(height, width) // 2 + 2).double().square()
    heights: Tensor = terms.flip(0).cumsum(0).flip(0)
    return heights[distance]


class _Blocks(NamedTuple):
    """Every clip's own block: where it begins ``(A, 3)``, its size, and the frames ``(A, k)`` that it counts in."""

    starts: Tensor
    size: Size
    frames: Tensor

    @property
    def times(self) -> Tensor:
        """Return the frames of every block, int64 ``(A, length)``."""
        return self.frames.gather(1, self.starts[:, :1] + torch.arange(self.size[0], device=self.starts.device))

    def read(self, delta: Tensor) -> Tensor:
        """Return what ``delta`` ``(A, C, T, H, W)`` holds in the blocks, ``(A, C, *size)``, as a copy."""
        views = self._views(delta)
        return delta[self._index(delta)] if views is None else torch.stack(views)

    def write(self, delta: Tensor, values: Tensor) -> None:
        """Put values, broadcastable to the blocks, there."""
        views = self._views(delta)
        if views is None:
            delta[self._index(delta)] = values
            return
        for view, own in zip(views, values.expand(len(views), *values.shape[1:]), strict=True):
            view.copy_(own)

    def _views(self, delta: Tensor) -> list[Tensor] | None:
        """Return the blocks one by one on a CPU, where every frame may change: a tenth of the time of an index."""
        if delta.device.type != "cpu" or self.frames.shape[1] < delta.shape[2]:
            return None
        places = [
            tuple(slice(first, first + extent) for first, extent in zip(start, self.size, strict=True))
            for start in self.starts.tolist()
        ]
        return [own[:, time, row, column] for own, (time, row, column) in zip(delta, places, strict=True)]

    def _index(self, delta: Tensor) -> tuple[Tensor, ...]:
        """Return the index of every block: batch, channel, frame, row, column."""
        device = self.starts.device
        row, column = (self.starts[:, axis, None] + torch.arange(self.size[axis], device=device) for axis in (1, 2))
        return (
            torch.arange(len(self.starts), device=device)[:, None, None, None, None],
            torch.arange(delta.shape[1], device=device)[:, None, None, None],
            self.times[:, None, :, None, None],
            row[:, None, None, :, None],
            column[:, None, None, None],
        )
