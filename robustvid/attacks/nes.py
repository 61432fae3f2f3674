"""NES: steepest ascent on a gradient that is estimated from scores, one number for each patch of each frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustvid.attacks.best import RESTART, Best, only_transfers
from robustvid.attacks.directions import momentum
from robustvid.attacks.goal import Goal, Target, make_goal
from robustvid.attacks.gradient import Problem
from robustvid.budget import Budget
from robustvid.errors import CardError

TENTATIVE = ("none", "random")
_STEP = 3  # the least that a step costs: two queries for a slope, one to see where it led


def nes(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    queries: int = 1000,
    samples: int = 20,
    sigma: float = 0.01,
    step_size: float = 0.2,
    patch: int = 8,
    tentative: str = "none",
    ranks: bool = True,
    decay: float = 0.9,
    loss: str = "margin",
    target: Target = None,
) -> Tensor:
    """Climb along a gradient estimated from scores, with one unknown for each patch of each frame.

    Let D z give every pixel of patch j of frame t the value z_{t,j} times the pixel's tentative direction. With z_i
    standard normal and L_i^± = L(f(clamp(x_k ± σ·D z_i)), y),

        g_k = Σ_i (r(L_i^+) - r(L_i^-)) z_i / (2σn),   m_{k+1} = μ·m_k + g_k,
        x_{k+1} = clamp(P_S(x_k + α·s(D N⁻¹ m_{k+1}))),   x_0 = x,

    where r replaces the 2n losses by their ranks (or leaves them), N holds how many pixels each patch has, s is the
    steepest point of the budget S and P_S the projection. For linf s takes ε·sign(m) times the tentative direction: the
    paper's rectified direction. Without ranks g_k is an unbiased estimate of the slope along each patch where L is
    linear. With ``budget.frames`` the first estimate chooses the frames by the dual norm, and x_k stays in them.

    Deviates from the paper: the tentative direction comes from no network but is 1, or a random sign for every pixel;
    steps have one length and momentum; a target is approached from the clip itself, not from a clip of that class.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1]; no gradient is asked of it.
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, one for each clip's draws.
        queries: clips shown to the model for each clip, the clean one and every iterate among them.
        samples: queries for one estimate, 2n; half of them mirror the other half. The last estimate makes do with what
            is left.
        sigma: σ, in units of pixels in [0, 1].
        step_size: α / ε.
        patch: height and width of a patch; those at the lower and right edge are cut off.
        tentative: ``none``, a patch grows brighter or darker, or ``random``, each of its values by its own sign.
        ranks: use ranks of the losses within an estimate rather than the losses.
        decay: μ.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most ``queries`` forwards and no backward a clip, less as soon as it is
        broken.

    Raises:
        CardError: a setting with which nothing would be attacked.

    References:
        Ilyas et al., "Black-box Adversarial Attacks with Limited Queries and Information", arXiv:1804.08598.
        Jiang et al., "Black-box Adversarial Attacks on Video Recognition Models", arXiv:1904.05181 (patches, ranks,
        tentative directions).
    """
    settings = _Settings(queries, samples, sigma, step_size, patch, tentative, ranks, decay)
    best, places = Best(clips), torch.arange(len(clips), device=clips.device)
    with torch.no_grad():
        logits = model(clips)
        goal = make_goal(lambda _: logits, clips, labels, seeds, loss, target)
        standing = best.score(places, clips, logits, goal)
        active = places if only_transfers(model) else standing
        if len(active):
            _search(model, Problem(clips, goal, budget, seeds, None).select(active), settings, best, active)
    return best.clips


@dataclass(frozen=True)
class _Settings:
    """How to search; see :func:`nes`."""

    queries: int
    samples: int
    sigma: float
    step_size: float
    patch: int
    tentative: str
    ranks: bool
    decay: float

    def __post_init__(self) -> None:
        if self.queries < 1 + _STEP:
            raise CardError(
                f"queries={self.queries}: give at least {1 + _STEP}, one for the clip and {_STEP} for a step"
            )
        if self.samples < 2 or self.patch < 1:
            raise CardError(f"samples={self.samples}, patch={self.patch}: give at least 2 samples and 1 pixel")
        if not (0 < self.sigma < math.inf and 0 < self.step_size < math.inf and 0 <= self.decay < math.inf):
            raise CardError(
                f"sigma={self.sigma}, step_size={self.step_size}, decay={self.decay}: give finite numbers, sigma and "
                "step_size above 0 and decay not below"
            )
        if self.tentative not in TENTATIVE:
            raise CardError(f"tentative={self.tentative!r}: give {' or '.join(TENTATIVE)}")


def slopes(
    model: nn.Module,
    clips: Tensor,
    goal: Goal,
    basis: Tensor,
    noise: Tensor,
    *,
    sigma: float,
    patch: int,
    ranks: bool,
    at_once: int = 1,
) -> Tensor:
    """Return the slope of the loss along each patch, ``(B, 1, T, h, w)``, estimated from 2n forwards a clip.

    Args:
        model: returns logits ``(B, K)``.
        clips: ``(B, C, T, H, W)``, where to take the slope.
        goal: what is climbed.
        basis: tentative direction of every pixel, broadcastable to the clips.
        noise: standard normal ``(B, n, 1, T, h, w)``; its negative is used, too.
        sigma: standard deviation of the changes.
        patch: height and width of a patch.
        ranks: weigh draws by the ranks of the losses rather than the losses.
        at_once: how many changes of each clip to show in one forward.
    """
    values = []
    for draws in torch.cat([noise, -noise], 1).split(at_once, 1):
        shifts = sigma * spread(draws, patch, clips) * basis[:, None]
        shown = (clips[:, None] + shifts).clamp(0, 1).flatten(0, 1)
        owners = torch.arange(len(clips), device=clips.device).repeat_interleave(draws.shape[1])
        values.append(goal.select(owners).value(model(shown)).unflatten(0, draws.shape[:2]))
    losses = torch.cat(values, 1)
    if ranks:
        losses = losses.argsort(dim=1, stable=True).argsort(dim=1).to(noise)
    high, low = losses.chunk(2, 1)
    total = torch.zeros_like(noise[:, 0])
    for draw, rise in enumerate((high - low).unbind(1)):  # one by one: how a sum is ordered may depend on the batch
        total += rise[:, None, None, None, None] * noise[:, draw]
    return total / (2 * sigma * noise.shape[1])


def spread(values: Tensor, patch: int, clips: Tensor) -> Tensor:
    """Return one value for each patch, ``(..., h, w)``, as pixels ``(..., H, W)`` of the clips' size."""
    height, width = clips.shape[-2:]
    return values.repeat_interleave(patch, -2).repeat_interleave(patch, -1)[..., :height, :width]


def grid(clips: Tensor, patch: int) -> tuple[int, int, int, int]:
    """Return the shape ``(1, T, h, w)`` that has one number for each patch of a clip."""
    frames, height, width = clips.shape[2:]
    return 1, frames, -(-height // patch), -(-width // patch)


def _search(model: nn.Module, problem: Problem, settings: _Settings, best: Best, places: Tensor) -> None:
    iterate, basis, direction = problem.clips, _tentative(problem, settings), momentum(settings.decay)
    sizes = _pixels(problem.clips, settings.patch)
    memory = direction.init(iterate.new_zeros(len(iterate), *grid(iterate, settings.patch)))
    most, left, step = len(iterate), settings.queries - 1, 0
    while left >= _STEP:
        pairs = min(settings.samples, left - 1) // 2
        found = slopes(
            model,
            iterate,
            problem.goal,
            basis,
            _noise(problem, pairs, settings.patch, step),
            sigma=settings.sigma,
            patch=settings.patch,
            ranks=settings.ranks,
            at_once=max(1, most // len(iterate)),
        )
        found, memory = direction.update(found, memory)
        grad = spread(found / sizes, settings.patch, iterate) * basis
        if step == 0:
            frames = problem.budget.salient(grad)
            basis, grad = basis * frames, grad * frames
        delta = problem.budget.project(iterate + settings.step_size * problem.budget.steepest(grad) - problem.clips)
        iterate = (problem.clips + delta).clamp(0, 1)
        left, step = left - 2 * pairs - 1, step + 1
        standing = best.score(places, iterate, model(iterate), problem.goal)
        if len(standing) < len(places) and not only_transfers(model):
            places, iterate, basis, problem = (
                places[standing],
                iterate[standing],
                basis[standing],
                problem.select(standing),
            )
            memory = tuple(tensor[standing] for tensor in memory)
        if not len(places):
            return


def _tentative(problem: Problem, settings: _Settings) -> Tensor:
    """Return the direction in which every pixel of a growing patch goes, ``(B, C, T, H, W)``."""
    if settings.tentative == "none":
        return torch.ones_like(problem.clips)
    draws = [torch.rand(problem.clips.shape[1:], generator=_generator(seed)) for seed in problem.seeds.tolist()]
    return torch.where(torch.stack(draws) < 0.5, -1, 1).to(problem.clips)


def _pixels(clips: Tensor, patch: int) -> Tensor:
    """Return the share of each patch that lies in the frame, ``(h, 1)`` times ``(1, w)``."""
    height, width = clips.shape[-2:]
    tall, wide = (
        torch.tensor([min(patch, extent - start) / patch for start in range(0, extent, patch)])
        for extent in (height, width)
    )
    return (tall[:, None] * wide).to(clips)


def _noise(problem: Problem, pairs: int, patch: int, step: int) -> Tensor:
    shape = (pairs, *grid(problem.clips, patch))
    seeds = problem.seeds + (step + 1) * RESTART
    return torch.stack([torch.randn(shape, generator=_generator(seed)) for seed in seeds.tolist()]).to(problem.clips)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed % 2**63)
