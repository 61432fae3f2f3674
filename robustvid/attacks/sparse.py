"""Attacks on few frames: the k frames that matter most, each frame alone, and as few frames as it takes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from robustvid.attacks.best import RESTART, Best
from robustvid.attacks.goal import Target, make_goal
from robustvid.attacks.gradient import Ascent, Problem, ascend, begin, climb, loss_gradient
from robustvid.budget import Budget
from robustvid.errors import CardError

RANKINGS = ("saliency", "random")
_GLANCES = 4  # gradients on the way into the budget before frames are ranked: better than ranking at the clean clip
_PIXELS = (1, 3, 4)


def sparse_frames(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 20,
    step_size: float = 0.4,
    rounds: int = 5,
    ranking: str = "saliency",
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Choose each clip's k frames by saliency, climb there, and exchange one for a better one while the clip stands.

    The frames M of largest first-order gain ⟨g_t, s(g)_t⟩ are taken after three small steps with all frames, of k / T
    of the radius together. Then x_{k+1} = clamp(x + P_S(M ⊙ (x_k + α_k·s(M ⊙ ∇L(x_k)) - x))), α_k falling linearly from
    ``step_size`` times the radius to 0. In every further round the frame of M that holds the least, ⟨g_t, δ_t⟩, makes
    room for the frame not tried yet that promises the most; the others keep their perturbation. Without
    ``budget.frames`` all frames are attacked, in one round.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be; ``budget.frames`` is k.
        seeds: int64 ``(B,)``, for each clip's random start.
        steps: gradient steps of a round.
        step_size: first α / ε.
        rounds: choices of frames, at most.
        ranking: ``saliency``, or ``random`` for a baseline whose frames are drawn anew in every round.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most 3 + rounds · (steps + 2) forwards and 3 + rounds · (steps + 1)
        backwards a clip, less as soon as it is broken.

    Raises:
        CardError: rounds or steps below 1, or no such ranking.

    References:
        Inkawhich et al., "Adversarial Attacks for Optical Flow-Based Action Recognition Classifiers", arXiv:1811.11875
        (frames by saliency, ranked anew); Wei et al., "Sparse Adversarial Perturbations for Videos", arXiv:1803.02536.
    """
    if rounds < 1 or ranking not in RANKINGS:
        raise CardError(f"rounds={rounds}, ranking={ranking!r}: give at least 1 round, and {' or '.join(RANKINGS)}")
    goal, ascent = make_goal(model, clips, labels, seeds, loss, target), Ascent(steps, step_size, decay=True)
    if budget.frames is None:
        return ascend(model, clips, goal, budget, seeds, ascent)
    best, free = Best(clips), replace(budget, frames=None)
    mask = torch.zeros_like(clips[:, :1, :, :1, :1])
    seen = torch.zeros_like(mask)
    for number in range(rounds):
        standing = best.standing()
        if not len(standing):
            break
        part = Problem(clips, goal, free, seeds + number * RESTART, None).select(standing)
        k = budget.select(standing)
        if ranking == "random" or number == 0:
            chosen = _drawn(part, k) if ranking == "random" else _first_choice(model, part, k)
            part = part._replace(mask=chosen)
            start = begin(part)
        else:
            grad, _ = loss_gradient(model, best.clips[standing], part.goal)
            chosen, start = _exchange(part, best.clips[standing], grad, mask[standing], seen[standing])
            part = part._replace(mask=chosen)
        run = climb(model, part, ascent, start)
        better = standing[(run.gap > best.gap[standing]) | run.met]
        best.offer(standing, run.clips, run.gap, run.met)
        seen[standing] = torch.maximum(seen[standing], chosen)
        placed = torch.zeros_like(mask)
        placed[standing] = chosen
        mask[better] = placed[better]
    return best.clips


def one_frame(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 10,
    step_size: float = 0.4,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Attack one frame alone, each in turn, the most salient first, until one suffices.

    For τ by falling first-order gain ⟨g_τ, s(g)_τ⟩ at the clean clip: PGD with support on frame τ, steps falling
    linearly to 0.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be; one frame changes whatever ``budget.frames`` says.
        seeds: int64 ``(B,)``, for each clip's random starts.
        steps: gradient steps for each frame.
        step_size: first α / ε.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most 1 + T · (steps + 1) forwards and 1 + T · steps backwards a clip,
        less as soon as it is broken.

    References:
        Hwang et al., "Just One Moment: Structural Vulnerability of Deep Action Recognition against One Frame Attack",
        arXiv:2011.14585.
    """
    goal, ascent = make_goal(model, clips, labels, seeds, loss, target), Ascent(steps, step_size, decay=True)
    best, free = Best(clips), replace(budget, frames=None)
    grad, logits = loss_gradient(model, clips, goal)
    best.score(torch.arange(len(clips), device=clips.device), clips, logits, goal)
    order = gains(free, grad).argsort(dim=1, descending=True, stable=True)
    for rank in range(clips.shape[2]):
        standing = best.standing()
        if not len(standing):
            break
        mask = torch.zeros_like(clips[:, :1, :, :1, :1])
        mask.scatter_(2, order[:, None, rank, None, None, None].expand(-1, 1, 1, 1, 1), 1)
        part = Problem(clips, goal, free, seeds + rank * RESTART, mask).select(standing)
        run = climb(model, part, ascent)
        best.offer(standing, run.clips, run.gap, run.met)
    return best.clips


def l21(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 60,
    step_size: float = 0.2,
    gamma: float = 0.1,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Look for the adversarial clip in the budget with the smallest Σ_t ‖δ_t‖₂, which leaves most frames untouched.

    δ_{k+1} = P_S(P_τ(δ_k + α_k·d_k)), with P_τ the projection onto {Σ_t ‖δ_t‖₂ ≤ τ}, which makes whole frames exactly
    zero. τ has no bound until δ_k is adversarial, then becomes (1 - γ_k) Σ_t ‖δ_t‖₂ whenever δ_k is, and grows by
    1 + γ_k when it is not, never beyond the smallest adversarial sum. d is s(∇L), the budget's steepest point, until
    τ is bounded, then the gradient itself, as long as s: signs would move all frames alike. α and γ fall linearly to 0.

    The paper minimises λ Σ_t RMS(δ_t) plus a loss with Adam; here the sum is a ball that shrinks, in the manner of FMN
    (arXiv:2102.12827), so that the budget holds and there is no λ to choose.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: S; with ``budget.frames`` in the frames of the largest gradient at the clean clip.
        seeds: int64 ``(B,)``, used for a random target alone.
        steps: gradient steps; a clip takes all of them unless it is misclassified as it comes.
        step_size: first α / ε.
        gamma: first γ.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most steps + 2 forwards and steps + 1 backwards a clip.

    Raises:
        CardError: steps below 1.

    References:
        Wei et al., "Sparse Adversarial Perturbations for Videos", arXiv:1803.02536.
    """
    Ascent(steps, step_size)  # refuses what would attack nothing
    goal = make_goal(model, clips, labels, seeds, loss, target)
    best = Best(clips)
    grad, logits = loss_gradient(model, clips, goal)
    standing = best.score(torch.arange(len(clips), device=clips.device), clips, logits, goal)
    if len(standing):
        part = Problem(clips, goal, budget, seeds, budget.salient(grad)).select(standing)
        found = _shrink(model, part._replace(budget=replace(part.budget, frames=None)), steps, step_size, gamma)
        best.clips[standing] = found
    return best.clips


def gains(budget: Budget, grad: Tensor) -> Tensor:
    """Return the first-order gain of every frame at the budget's steepest point, ⟨g_t, s(g)_t⟩, ``(B, T)``."""
    return (grad * budget.steepest(grad)).sum(_PIXELS)


def project_l21(delta: Tensor, radius: Tensor) -> Tensor:
    """Return the point of {Σ_t ‖δ_t‖₂ ≤ radius} nearest to ``delta`` ``(B, C, T, H, W)``; radii ``(B,)``, 0 or more.

    Frame t keeps its direction and gets the norm max(n_t - θ, 0), θ ≥ 0 found by sorting the norms n.

    Duchi et al., "Efficient Projections onto the l1-Ball for Learning in High Dimensions", ICML 2008.
    """
    norms = torch.linalg.vector_norm(delta, dim=_PIXELS).double()
    radius = radius.double()[:, None]
    ordered = norms.sort(dim=1, descending=True).values
    counts = torch.arange(1, norms.shape[1] + 1, device=delta.device)
    levels = (ordered.cumsum(1) - radius) / counts
    last = (ordered > levels).sum(1, keepdim=True).clamp_min(1) - 1
    level = levels.gather(1, last).clamp_min(0)
    kept = torch.where(norms > 0, (norms - level).clamp_min(0) / norms.clamp_min(torch.finfo(norms.dtype).tiny), 0)
    kept = torch.where(norms.sum(1, keepdim=True) <= radius, torch.ones_like(kept), kept)
    return delta * kept.to(delta)[:, None, :, None, None]


def _first_choice(model: nn.Module, part: Problem, budget: Budget) -> Tensor:
    """Return the frames of largest gain, ``(B, 1, T, 1, 1)``, after a look at where all frames lead."""
    share = torch.as_tensor(budget.frames, device=part.clips.device).to(part.clips) / part.clips.shape[2]
    share = share.clamp_max(1).reshape(-1, 1, 1, 1, 1)
    point = part.clips
    for glance in range(_GLANCES):
        grad, _ = loss_gradient(model, point, part.goal)
        length = share * (glance + 1) / (_GLANCES - 1)
        point = (part.clips + length * part.budget.steepest(grad)).clamp(0, 1)
    return budget.salient(grad)


def _drawn(part: Problem, budget: Budget) -> Tensor:
    frames = part.clips.shape[2]
    lots = [torch.rand(frames, generator=torch.Generator().manual_seed(seed % 2**63)) for seed in part.seeds.tolist()]
    return budget.salient(torch.stack(lots).to(part.clips)[:, None, :, None, None] + 1e-6)


def _exchange(part: Problem, point: Tensor, grad: Tensor, mask: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frames with one exchanged, and where to start; a clip without a frame left to try stays as it is."""
    delta, rows = point - part.clips, torch.arange(len(point), device=point.device)
    inside, tried = mask[:, 0, :, 0, 0] > 0, seen[:, 0, :, 0, 0] > 0
    held = torch.where(inside, (grad * delta).sum(_PIXELS), torch.inf)
    promised = torch.where(tried, -torch.inf, gains(part.budget, grad))
    able = ~tried.all(1)
    chosen = mask.clone()
    chosen[rows[able], 0, held.argmin(1)[able]] = 0
    chosen[rows[able], 0, promised.argmax(1)[able]] = 1
    fresh = chosen * (1 - mask)
    delta = delta * chosen + part.budget.steepest(grad * fresh) * fresh
    return chosen, (part.clips + part.budget.project(delta)).clamp(0, 1)


def _as_long_as(steepest: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient scaled to the l2 norm of ``steepest``, clip by clip."""
    ours, wanted = (torch.linalg.vector_norm(x, dim=(1, 2, 3, 4), keepdim=True) for x in (grad, steepest))
    return torch.as_tensor(grad * (wanted / ours.clamp_min(torch.finfo(grad.dtype).tiny)))


def _shrink(model: nn.Module, part: Problem, steps: int, step_size: float, gamma: float) -> Tensor:
    """Return the adversarial clips of smallest sum of frame norms, or those of largest gap where there are none."""
    fallback, found = Best(part.clips), part.clips.clone()
    places = torch.arange(len(part.clips), device=part.clips.device)
    smallest = torch.full((len(places),), torch.inf, dtype=torch.float64, device=places.device)
    radius, iterate = smallest.clone(), part.clips
    for step in range(steps + 1):
        last = step == steps
        if last:
            with torch.no_grad():
                logits = model(iterate)
        else:
            grad, logits = loss_gradient(model, iterate, part.goal)
        delta, met = iterate - part.clips, part.goal.met(logits)
        fallback.score(places, iterate, logits, part.goal)
        size = torch.linalg.vector_norm(delta, dim=_PIXELS).double().sum(1)
        better = met & (size < smallest)
        found[better], smallest = iterate[better], torch.where(better, size, smallest)
        if last:
            break
        left = 1 - step / steps
        radius = torch.where(met, (1 - gamma * left) * size, torch.minimum(radius * (1 + gamma * left), smallest))
        steepest = part.budget.steepest(grad if part.mask is None else grad * part.mask)
        scaled = torch.where(torch.isfinite(radius)[:, None, None, None, None], _as_long_as(steepest, grad), steepest)
        delta = delta + step_size * left * (scaled if part.mask is None else scaled * part.mask)
        iterate = (part.clips + part.budget.project(project_l21(delta, radius))).clamp(0, 1)
    return torch.where(torch.isfinite(smallest)[:, None, None, None, None], found, fallback.clips)
