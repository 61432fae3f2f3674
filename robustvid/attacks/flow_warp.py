"""Flow warp: pixels move along a smooth flow field instead of changing their values."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustvid.attacks.best import Best, only_transfers
from robustvid.attacks.goal import Goal, Target, make_goal
from robustvid.attacks.gradient import salient_frames, view_gradient
from robustvid.budget import Budget
from robustvid.errors import CardError
from robustvid.registry import did_you_mean

_DECAY = 0.9, 0.999  # of Adam's two moments
_RULES = ("adam", "sign")
_KINK = 1e-3  # rounds the total variation off at zero, in units of the largest displacement


def flow_warp(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    displacement: float = 2.0,
    cell: int = 4,
    steps: int = 30,
    step_size: float = 0.2,
    smoothness: float = 1.0,
    rule: str = "adam",
    loss: str = "margin",
    target: Target = None,
) -> Tensor:
    """Warp every frame by a flow field w that climbs L(f(x'(w)), y) - τ·TV(w).

    x'(w) = clamp(x + P_S(warp(x, w) - x)), warp(x, w)_t(p) = x_t(p + w_t(p)) by bilinear interpolation, edges repeated.
    w ← w + α·s(∇_w), s being Adam's normalised step or the sign; then every vector is cut to ``displacement`` pixels.
    The gradient passes P_S and the clamp as if they were not there, because behind a saturated pixel it would be
    zero. With ``Budget("linf", frame=1)`` P_S changes nothing and x' is the pure warp. With ``budget.frames`` the
    frames with the largest gradient at the clip are warped.

    Deviations from the paper: first-order steps with a hard bound on the displacement instead of L-BFGS; the total
    variation also runs over time, and is the mean over the field; the field may be coarse.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation x' - x may be.
        seeds: int64 ``(B,)``, for the start of w within a tenth of ``displacement``, where no neighbour is a tie.
        displacement: the longest flow vector, in pixels.
        cell: pixels between two vectors of the field, which is interpolated; 1 gives each pixel its own.
        steps: gradient steps K.
        step_size: α / ``displacement``.
        smoothness: τ; the total variation is in units of ``displacement``.
        rule: ``adam`` or ``sign``.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Warped clips, same shape. Costs at most K + 1 forwards and K backwards a clip, less as soon as the clip is
        broken; one more of each with ``budget.frames``.

    Raises:
        CardError: a setting under which nothing would move.

    References:
        Xiao et al., "Spatially Transformed Adversarial Examples", arXiv:1801.02612.
    """
    _check(rule, smoothness, displacement=displacement, cell=cell, steps=steps, step_size=step_size)
    goal = make_goal(model, clips, labels, seeds, loss, target)
    frames = None if budget.frames is None else salient_frames(model, clips, goal, budget)
    scene, state = _Scene(clips, goal, budget, frames, displacement), _start(clips, seeds, cell)
    best, active = Best(clips), torch.arange(len(clips), device=clips.device)
    for number in range(1, steps + 1):
        grad, shown, logits = _gradient(model, scene, state.field, smoothness)
        standing = best.score(active, shown, logits, scene.goal)
        if len(standing) < len(active) and not only_transfers(model):
            active, grad = active[standing], grad[standing]
            scene, state = scene.select(standing), state.select(standing)
        if not len(active):
            return best.clips
        state = state.step(grad, step_size, number, rule)
    with torch.no_grad():
        shown = scene.show(state.field)
        best.score(active, shown, model(shown), scene.goal)
    return best.clips


def warp(clips: Tensor, flow: Tensor) -> Tensor:
    """Return x_t(p + w_t(p)), bilinear, edges repeated; differentiable in the flow.

    Args:
        clips: ``(B, C, T, H, W)``.
        flow: ``(B, 2, T, H, W)``, pixels down and to the right. Where it is zero the clip is unchanged, bit for bit.
    """
    height, width = clips.shape[3:]
    whole = flow.detach().floor()
    down, right = (flow - whole).unsqueeze(2).unbind(1)
    rows = torch.arange(height, device=clips.device)[:, None] + whole[:, 0].long()
    columns = torch.arange(width, device=clips.device) + whole[:, 1].long()

    def at(below: int, beside: int) -> Tensor:
        place = (rows + below).clamp(0, height - 1) * width + (columns + beside).clamp(0, width - 1)
        return clips.flatten(3).gather(3, place.flatten(2)[:, None].expand(-1, clips.shape[1], -1, -1)).view_as(clips)

    upper = at(0, 0) * (1 - right) + at(0, 1) * right
    lower = at(1, 0) * (1 - right) + at(1, 1) * right
    return upper * (1 - down) + lower * down


def total_variation(field: Tensor) -> Tensor:
    """Return the mean length of the differences between neighbours in time and space, ``(B,)``; 0 when constant."""
    squares = sum(torch.diff(field, dim=axis, append=field.narrow(axis, -1, 1)).square().sum(1) for axis in (2, 3, 4))
    return ((torch.as_tensor(squares) + _KINK**2).sqrt() - _KINK).mean((1, 2, 3))


class _Scene(NamedTuple):
    """Clips to warp, each with its goal and budget; ``frames`` is 1 for the frames that move, None for all."""

    clips: Tensor
    goal: Goal
    budget: Budget
    frames: Tensor | None
    displacement: float

    def select(self, index: Tensor) -> _Scene:
        """Return the scene of some clips of the batch."""
        frames = None if self.frames is None else self.frames[index]
        return _Scene(self.clips[index], self.goal.select(index), self.budget.select(index), frames, self.displacement)

    def masked(self, field: Tensor) -> Tensor:
        """Return the field, zero in frames that do not move."""
        return field if self.frames is None else field * self.frames

    def show(self, field: Tensor) -> Tensor:
        """Return the clips warped by a field in units of the displacement, inside the budget and [0, 1]."""
        flow = self.displacement * _enlarged(self.masked(field), self.clips.shape[3], self.clips.shape[4])
        warped = warp(self.clips, flow)
        shown = (self.clips + self.budget.project(warped.detach() - self.clips)).clamp(0, 1)
        return shown + (warped - warped.detach())  # the value of the one with the gradient of the other


def _gradient(model: nn.Module, scene: _Scene, field: Tensor, smoothness: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of the objective with respect to the field, the warped clips, and their logits."""
    grad, shown, logits = view_gradient(model, field, scene.show, scene.goal)
    with torch.enable_grad():
        leaf = field.detach().requires_grad_()
        (roughness,) = torch.autograd.grad(total_variation(scene.masked(leaf)).sum(), leaf)
    return grad - smoothness * roughness, shown, logits


class _State(NamedTuple):
    """The field ``(B, 2, T, h, w)`` in units of the displacement, and the two moments of Adam."""

    field: Tensor
    first: Tensor
    second: Tensor

    def select(self, index: Tensor) -> _State:
        """Return the state of some clips of the batch."""
        return _State(*(tensor[index] for tensor in self))

    def step(self, grad: Tensor, step_size: float, number: int, rule: str) -> _State:
        """Return the state after one step uphill, no vector longer than 1."""
        (fast, slow), (first, second) = _DECAY, self[1:]
        first, second = fast * first + (1 - fast) * grad, slow * second + (1 - slow) * grad.square()
        if rule == "sign":
            direction = grad.sign()
        else:
            scale = (second / (1 - slow**number)).sqrt().clamp_min(torch.finfo(grad.dtype).tiny)
            direction = first / (1 - fast**number) / scale
        field = self.field + step_size * direction
        length = torch.linalg.vector_norm(field, dim=1, keepdim=True)
        return _State(field / length.clamp_min(1), first, second)


def _start(clips: Tensor, seeds: Tensor, cell: int) -> _State:
    frames, height, width = clips.shape[2:]
    shape = (2, frames, math.ceil(height / cell), math.ceil(width / cell))
    draws = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    field = (torch.stack(draws).to(clips) - 0.5) / 10
    return _State(field, torch.zeros_like(field), torch.zeros_like(field))


def _enlarged(field: Tensor, height: int, width: int) -> Tensor:
    """Return the field interpolated bilinearly, corner on corner; a matrix product, whose gradient is deterministic."""
    planes, (coarse_height, coarse_width) = field.flatten(0, 2), field.shape[3:]
    if (coarse_height, coarse_width) == (height, width):
        return field
    down = _interpolation(coarse_height, height, field).expand(len(planes), -1, -1)
    right = _interpolation(coarse_width, width, field).expand(len(planes), -1, -1)
    return (down @ planes @ right.mT).view(*field.shape[:3], height, width)


def _interpolation(coarse: int, fine: int, like: Tensor) -> Tensor:
    """Return the matrix ``(fine, coarse)`` of linear interpolation."""
    place = torch.linspace(0, coarse - 1, fine, dtype=like.dtype, device=like.device)
    nodes = torch.arange(coarse, dtype=like.dtype, device=like.device)
    return (1 - (place[:, None] - nodes).abs()).clamp_min(0)


def _check(rule: str, smoothness: float, **positive: float) -> None:
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise CardError(f"{name}={value}: give a finite number above 0")
    if not 0 <= smoothness < math.inf:
        raise CardError(f"smoothness={smoothness}: give a finite number, 0 or more")
    if rule not in _RULES:
        raise CardError(f"no rule {rule!r}.{did_you_mean(rule, _RULES)} There are: {', '.join(_RULES)}.")
