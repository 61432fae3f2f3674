"""Attacks on a part of the picture: a border around it, or a patch in it."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from robustvid.attacks.best import RESTART, Best
from robustvid.attacks.goal import Target, make_goal
from robustvid.attacks.gradient import Ascent, Problem, climb, salient_frames
from robustvid.budget import Budget
from robustvid.errors import CardError


def border(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    ratio: float = 0.15,
    steps: int = 40,
    step_size: float = 0.1,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Climb in a border around every frame; nothing inside it changes.

    x_{k+1} = clamp(x + P_S(M ⊙ (x_k + α·s(M ⊙ ∇L(x_k)) - x))), M = 1 on the border. It is as many pixels t thick as fit
    into ``ratio`` of the frame, 2t(H + W) - 4t² ≤ ratio·H·W, at least one. With ``linf frame 1`` its pixels are free.
    The paper learns one border for all clips; here every clip has its own, and it changes in time.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be on the border.
        seeds: int64 ``(B,)``, for each clip's random start.
        ratio: share of the frame's area, above 0 and at most 1.
        steps: gradient steps K.
        step_size: α / ε.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most K + 1 forwards and K backwards a clip, less as soon as it is
        broken; one more of each with ``budget.frames``.

    Raises:
        CardError: the ratio is outside its range, or steps are below 1.

    References:
        Zajac et al., "Adversarial Framing for Image and Video Classification", arXiv:1812.04599.
    """
    _check_ratio(ratio)
    height, width = clips.shape[-2:]
    thick = border_thickness(ratio, height, width)
    mask = torch.ones_like(clips[:, :1])
    mask[..., thick : height - thick, thick : width - thick] = 0
    problem = Problem(clips, make_goal(model, clips, labels, seeds, loss, target), budget, seeds, mask)
    best = Best(clips)
    _attack(model, problem, best, Ascent(steps, step_size))
    return best.clips


def patch(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    ratio: float = 0.1,
    tries: int = 4,
    steps: int = 40,
    step_size: float = 0.1,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Climb in one rectangle, at the same place in all frames; nothing outside it changes.

    The update is that of :func:`border`. The rectangle has the frame's proportions and ``ratio`` of its area; its place
    is drawn for each clip, and drawn anew ``tries`` times at most while the clip stands.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be in the rectangle.
        seeds: int64 ``(B,)``, for places and random starts.
        ratio: share of the frame's area, above 0 and at most 1.
        tries: places.
        steps: gradient steps K at each place.
        step_size: α / ε.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most tries · (K + 1) forwards and tries · K backwards a clip, less as
        soon as it is broken; with ``budget.frames`` one more of each for every place.

    Raises:
        CardError: the ratio is outside its range, or tries or steps are below 1.

    References:
        Brown et al., "Adversarial Patch", arXiv:1712.09665; Wu et al., "Defending Against Physically Realizable Attacks
        on Image Classification", arXiv:1909.09552 (rectangles whose place is searched).
    """
    _check_ratio(ratio)
    if tries < 1:
        raise CardError(f"tries={tries}: give at least 1")
    goal, ascent, best = make_goal(model, clips, labels, seeds, loss, target), Ascent(steps, step_size), Best(clips)
    for number in range(tries):
        standing = best.standing()
        if not len(standing):
            break
        drawn = seeds + number * RESTART
        masks = torch.stack([rectangle(clips, ratio, int(seed)) for seed in drawn.tolist()])
        _attack(model, Problem(clips, goal, budget, drawn, masks).select(standing), best, ascent, standing)
    return best.clips


def border_thickness(ratio: float, height: int, width: int) -> int:
    """Return the pixels t of the thickest border with 2t(H + W) - 4t² ≤ ratio·H·W; at least 1."""
    half = (height + width) / 2
    thick = (half - math.sqrt(max(0.0, half * half - ratio * height * width))) / 2
    return min(max(1, math.floor(thick + 1e-9)), (min(height, width) + 1) // 2)


def rectangle(clips: Tensor, ratio: float, seed: int) -> Tensor:
    """Return a mask ``(1, T, H, W)`` that is 1 in a rectangle of ``ratio`` of the area, its place drawn by ``seed``."""
    mask = torch.zeros_like(clips[0, :1])
    draw = partial(torch.rand, (), generator=torch.Generator().manual_seed(seed % 2**63))
    spans = []
    for extent in clips.shape[-2:]:
        length = min(extent, max(1, round(math.sqrt(ratio) * extent)))
        begin = min(int(float(draw()) * (extent - length + 1)), extent - length)
        spans.append(slice(begin, begin + length))
    mask[..., spans[0], spans[1]] = 1
    return mask


def _attack(model: nn.Module, problem: Problem, best: Best, ascent: Ascent, places: Tensor | None = None) -> None:
    """Climb inside the problem's mask and offer what is found; ``places`` are those of its clips in ``best``."""
    if places is None:
        places = torch.arange(len(problem.clips), device=problem.clips.device)
    if problem.budget.frames is not None and problem.mask is not None:
        frames = salient_frames(model, problem.clips, problem.goal, problem.budget, problem.mask)
        problem = problem._replace(mask=frames * problem.mask)
    run = climb(model, problem, ascent)
    best.offer(places, run.clips, run.gap, run.met)


def _check_ratio(ratio: float) -> None:
    if not 0 < ratio <= 1:
        raise CardError(f"ratio={ratio}: give a share of the frame's area, above 0 and at most 1")
