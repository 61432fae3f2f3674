"""Square for video: random search over blocks of space and time, by scores alone."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustvid.attacks.best import Best, only_transfers
from robustvid.attacks.goal import Target, make_goal
from robustvid.attacks.gradient import Problem
from robustvid.budget import Budget
from robustvid.errors import CardError, UnknownNameError
from robustvid.registry import did_you_mean

SHAPES = ("cuboid", "tube", "fold")
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # proposals after which p halves, of 10 000
_TILES = 5  # bumps along height and width with which l2 starts
_LEAST = 3  # a bump for l2 has at least so many pixels along height and width
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
    """TODO."""
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
        return self.p_init / 2.0 ** bisect_left(_HALVINGS, done)

    def size(self, share: float, room: Size, least: int = 1) -> Size:
        """Return the block of this share of ``room`` (frames, height, width): its frames, height and width."""
        frames, height, width = room
        power = {"share": 1 / 3, "one": 99.0, "half": 0.5, "cycle2": [1/3, 99.0][Q % 2], "cycle3": [1/3, 99.0, 99.0][Q % 3],"cycle": 0, "fine": 0,"sq":0}[ASPECT]
        length = max(1, round(share ** power * frames)) 
        if ASPECT == "cycle": length = max(1, frames >> (Q % frames.bit_length()))
        if ASPECT == "fine": length = 1 + Q % max(1, round(share ** (1/3) * frames))
        if ASPECT == "sq": length = [1, 2][Q % 2]
        length = length if self.shape == "cuboid" else frames
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
        free = torch.tensor([whole - part + 1 for whole, part in zip(room, size, strict=True)]).to(self.problem.clips)
        return (self.uniform(3) * free).floor().minimum(free - 1).long()


Q = 0
START_OWN = True
SIGN_OWN = False
ASPECT = "share"
SWAP_PERIOD = 2
SWAP_MOST = 10**9
TIME_SPLIT = False
BOTH_INSIDE = False
SPARE = True


def _frame_counts(budget: Budget, clips: Tensor) -> Tensor:
    frames = clips.shape[2]
    wanted = frames if budget.frames is None else budget.frames
    return torch.as_tensor(wanted, device=clips.device).expand(len(clips)).clamp_max(frames)


def _search(model, problem, count, settings, best, places):
    streams = [torch.Generator().manual_seed(seed % 2**63) for seed in problem.seeds.tolist()]
    moves, transfers = _Moves(problem, settings, streams), only_transfers(model)
    state = None
    for query in range(settings.queries - 1):
        trial = _start(moves, count) if state is None else _propose(moves, state, query - 1)
        shown = (moves.problem.clips + trial.delta).clamp_(0, 1)
        logits = model(shown)
        value = moves.problem.goal.value(logits)
        if state is None:
            state = trial._replace(value=torch.full_like(value, -torch.inf))
        better = ((value > state.value) | moves.problem.goal.met(logits)).nonzero().squeeze(1)
        kept = trial._replace(value=value, delta=trial.delta if problem.budget.norm == "linf" else shown - moves.problem.clips)
        for old, new in zip(state, kept, strict=True):
            old[better] = new[better]
        standing = best.score(places, shown, logits, moves.problem.goal)
        if len(standing) < len(places) and not transfers:
            places, state, moves = places[standing], state.select(standing), moves.select(standing)
        if not len(places):
            return


def _start(moves: _Moves, count: int) -> _State:
    clips = moves.problem.clips
    channels, total, height, width = clips.shape[1:]
    order = torch.stack([torch.randperm(total, generator=stream)[:count].sort().values for stream in moves.streams])
    frames = order.to(clips.device)
    own = count if moves.settings.shape == "fold" or (START_OWN and moves.settings.shape == "cuboid") else 1
    if moves.problem.budget.norm == "linf":
        pattern = moves.signs(channels, own, 1, width).expand(-1, -1, count, height, -1)
    else:
        pattern = _bumps(moves, (channels, own), (height, width)).expand(-1, -1, count, -1, -1)
    delta = torch.zeros_like(clips)
    delta[_at(torch.zeros_like(frames[:, :1]).expand(-1, 3), (count, height, width), frames, channels)] = pattern
    return _State(moves.problem.budget.steepest(delta), frames, clips.new_zeros(len(clips)))


def _bumps(moves, lead, room):
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


def _bump(height: int, width: int) -> Tensor:
    """Return nested rectangles around the middle, steeper towards it: Σ_{k ≥ r} 1/(k+1)² at distance r."""
    rows, columns = ((torch.arange(extent) - extent // 2).abs() for extent in (height, width))
    distance = torch.maximum(rows[:, None], columns)
    terms = 1 / torch.arange(1, max(height, width) // 2 + 2).double().square()
    return terms.flip(0).cumsum(0).flip(0)[distance]


def _halves(size: tuple[int, int], axis: int) -> Tensor:
    """Return a bump beside its negative, of norm 1."""
    cut = size[axis] // 2
    pieces = [list(size), list(size)]
    pieces[0][axis], pieces[1][axis] = cut, size[axis] - cut
    pattern = torch.cat([_bump(*pieces[0]), -_bump(*pieces[1])], axis)
    return pattern / pattern.norm()


def _at(starts: Tensor, size: Size, frames: Tensor, channels: int) -> tuple[Tensor, ...]:
    device = starts.device
    time, row, column = (starts[:, axis, None] + torch.arange(size[axis], device=device) for axis in range(3))
    batch = torch.arange(len(starts), device=device)[:, None, None, None, None]
    channel = torch.arange(channels, device=device)[:, None, None, None]
    return batch, channel, frames.gather(1, time)[:, None, :, None, None], row[:, None, None, :, None], column[:, None, None, None]


def _propose(moves: _Moves, state: _State, proposal: int) -> _State:
    total, count = state.delta.shape[2], state.frames.shape[1]
    if count < total and proposal % SWAP_PERIOD == 0 and proposal < SWAP_MOST:
        return _swap(moves, state)
    share = moves.settings.share(proposal)
    global Q
    Q = proposal
    if moves.problem.budget.norm == "linf":
        return _recolour(moves, state, share)
    return _move_mass(moves, state, share)


def _swap(moves, state):
    total, count = state.delta.shape[2], state.frames.shape[1]
    free = torch.ones(len(state.frames), total, device=state.frames.device).scatter_(1, state.frames, 0)
    closed = free.argsort(1, descending=True, stable=True)
    draws = moves.uniform(2)
    slot = (draws[:, :1] * count).long().clamp_max(count - 1)
    new = closed.gather(1, (draws[:, 1:] * (total - count)).long().clamp_max(total - count - 1))
    old = state.frames.gather(1, slot)
    delta, row = state.delta.clone(), torch.arange(len(old), device=old.device)
    delta[row, :, new[:, 0]] = delta[row, :, old[:, 0]]
    delta[row, :, old[:, 0]] = 0
    return state._replace(delta=delta, frames=state.frames.scatter(1, slot, new).sort(1).values)


def _recolour(moves, state, share):
    channels, _, height, width = state.delta.shape[1:]
    count = state.frames.shape[1]
    room = (count, height, width)
    size = moves.settings.size(share, room)
    window = _at(moves.starts(size, room), size, state.frames, channels)
    own = size[0] if moves.settings.shape == "fold" or SIGN_OWN else 1
    radius = moves.problem.budget.steepest(torch.ones_like(state.delta[:, :1, :1, :1, :1]))
    block = radius * moves.signs(channels, own, 1, 1)
    delta = state.delta.clone()
    idle = (delta[window] == block).flatten(1).all(1)
    delta[window] = torch.where(idle[:, None, None, None, None], -block, block)
    return state._replace(delta=delta)


def _move_mass(moves, state, share):
    budget = moves.problem.budget
    channels, _, height, width = state.delta.shape[1:]
    count = state.frames.shape[1]
    room = (count, height, width)
    size = moves.settings.size(share, room, _LEAST)
    fold = moves.settings.shape == "fold"
    inside = budget.clip is None or fold or (BOTH_INSIDE and budget.frame is not None)
    axes = (3, 4) if inside else (2, 3, 4)
    first, second = moves.starts(size, room), moves.starts(size, room)
    if inside:
        second[:, 0] = first[:, 0]
    one, two = (_at(start, size, state.frames, channels) for start in (first, second))
    delta = state.delta.clone()
    # spare
    if budget.clip is None:
        radius = budget.steepest(torch.ones_like(delta[:, :1, :1, :1, :1]))
        spare = (radius.square() - delta.square().sum((1, 3, 4), keepdim=True)).clamp_min(0) / channels
        spare = spare[one[0], 0, one[2], 0, 0]
    else:
        radius = replace(budget, frame=None).steepest(torch.ones_like(delta[:, :1, :1, :1, :1]))
        spare = (radius.square() - delta.square().sum((1, 2, 3, 4), keepdim=True)).clamp_min(0) / channels
        if inside:
            spare = spare / count
    old = delta[one]
    mass = old.square().sum(axes, keepdim=True)
    old = old / mass.sqrt().clamp_min(1e-12)
    delta[one] = 0
    mass = mass + delta[two].square().sum(axes, keepdim=True)
    if SPARE:
        mass = mass + spare
    delta[two] = 0
    upright = moves.uniform(1, 1, 1, 1)
    options = [_halves(size[1:], axis).to(delta).expand(size) for axis in (0, 1)]
    n = 2
    if TIME_SPLIT and size[0] > 1 and not inside:
        b = _bump(*size[1:]).to(delta).expand(size).clone()
        b[: size[0] // 2] *= -1
        options.append(b)
        n = 3
    bump = torch.stack(options)[(upright.flatten() * n).long().clamp_max(n - 1)][:, None]
    bump = bump / bump.square().sum(axes, keepdim=True).sqrt()
    new = bump * moves.signs(channels, count if fold else 1, 1, 1) + old
    new = new / new.square().sum(axes, keepdim=True).sqrt().clamp_min(1e-12)
    delta[one] = new * mass.sqrt()
    return state._replace(delta=budget.steepest(delta))
