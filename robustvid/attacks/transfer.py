"""Gradients that carry over to other models: MI-FGSM with Nesterov's look-ahead, and with transformed inputs.

Each attack climbs as :func:`~robustvid.attacks.mi_fgsm.mi_fgsm` does; what differs is the gradient. A transformation is
drawn once for a clip and shared by its frames, so that motion stays motion.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustvid.attacks.directions import Direction, Memory, chain, momentum, unit
from robustvid.attacks.goal import Goal, Target, make_goal
from robustvid.attacks.gradient import Ascent, Look, Refinement, ascend, draw, view_gradient
from robustvid.budget import Budget
from robustvid.errors import CardError

_DRAW = 2_038_074_743  # seeds of the draws of one clip lie so far apart


def ni_fgsm(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 10,
    step_size: float = 0.1,
    decay: float = 1.0,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Take the gradient where the momentum leads to, rather than where the iterate is.

    g_k = ∇_x L(f(x_k + α·μ·m_k));  m_{k+1} = μ·m_k + g_k / ‖g_k‖₁;  x_{k+1} = clamp(P_S(x_k + α·s(m_{k+1}))).

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1]; it also meets points a little outside.
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be. α·m has the mean absolute value of a step for every unit of m's.
        seeds: int64 ``(B,)``, used for a random target alone.
        steps: gradient steps K.
        step_size: α / ε; the paper's value is 1 / K.
        decay: μ; with 0 there is no look-ahead, and this is iterated FGSM.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most 2K forwards and K backwards a clip: the iterates are scored too.

    References:
        Lin et al., "Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks", arXiv:1908.06281.
    """
    ascent = Ascent(steps, step_size, chain(unit(), momentum(decay)), random_start=False, lookahead=decay)
    return ascend(model, clips, make_goal(model, clips, labels, seeds, loss, target), budget, seeds, ascent)


def di_fgsm(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 10,
    step_size: float = 0.1,
    decay: float = 1.0,
    probability: float = 0.5,
    smallest: float = 0.9,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Take each gradient through a random resizing and padding of the clip, or, else, as it is.

    g_k = ∇_x L(f(T(x_k; p))), then as MI-FGSM. With probability p, T shrinks the clip to a random share of its height
    and width and puts it at a random place on black; one draw for all frames of a clip, a new one at every step. The
    paper enlarges an image of 299 pixels onto a canvas of 330; here the shares are the same and the clip keeps its
    size, because many video models take one size alone.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, for the transformations.
        steps: gradient steps K.
        step_size: α / ε.
        decay: μ.
        probability: p; with 0 this is MI-FGSM.
        smallest: smallest share of height and width, above 0 and at most 1.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most 2K + 1 forwards and K backwards a clip: the iterates are scored as
        they are.

    Raises:
        CardError: ``probability`` or ``smallest`` outside its range.

    References:
        Xie et al., "Improving Transferability of Adversarial Examples with Input Diversity", arXiv:1803.06978.
    """
    _demand(0 <= probability <= 1, f"probability={probability}: give a number from 0 to 1")
    _demand(0 < smallest <= 1, f"smallest={smallest}: give a share of the frame above 0 and at most 1")

    def refine(model: nn.Module, look: Look) -> tuple[Tensor, Memory]:
        matrices = [
            _resizing(int(seed) + (1 + look.step) * _DRAW, probability, smallest, look.point)
            for seed in look.problem.seeds.tolist()
        ]
        return gradient_through(model, look, lambda point: _resized(point, matrices)), ()

    direction = chain(unit(), momentum(decay))
    ascent = Ascent(steps, step_size, direction, _only_logits, random_start=False, refine=refine)
    return ascend(model, clips, make_goal(model, clips, labels, seeds, loss, target), budget, seeds, ascent)


def ti_fgsm(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 10,
    step_size: float = 0.1,
    decay: float = 1.0,
    kernel: int = 15,
    sigma: float = 3.0,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Smooth each gradient over the frame, as if it were averaged over small translations of the clip.

    g_k = W * ∇_x L(f(x_k)), W a Gaussian over height and width of each frame and channel; then as MI-FGSM.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, used for a random target alone.
        steps: gradient steps K.
        step_size: α / ε.
        decay: μ.
        kernel: width of W in pixels, odd; along a shorter side of the frame W is no wider than that. With 1 this is
            MI-FGSM.
        sigma: standard deviation of W in pixels.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most K + 1 forwards and K backwards a clip.

    Raises:
        CardError: ``kernel`` is not odd, or ``sigma`` not above 0.

    References:
        Dong et al., "Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks",
        arXiv:1904.02884.
    """
    ascent = Ascent(steps, step_size, chain(smooth(kernel, sigma), unit(), momentum(decay)), random_start=False)
    return ascend(model, clips, make_goal(model, clips, labels, seeds, loss, target), budget, seeds, ascent)


def si_fgsm(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 10,
    step_size: float = 0.1,
    decay: float = 1.0,
    copies: int = 5,
    nesterov: bool = False,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Average each gradient over darker copies of the clip.

    g_k = 1/m Σ_{i<m} ∇_x L(f(x_k / 2^i)), then as MI-FGSM, or as NI-FGSM with ``nesterov``.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1].
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, used for a random target alone.
        steps: gradient steps K.
        step_size: α / ε.
        decay: μ.
        copies: m; with 1 this is MI-FGSM.
        nesterov: look ahead as in NI-FGSM: the paper's SI-NI-FGSM.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most m·K + 1 forwards and m·K backwards a clip; K - 1 forwards more
        with ``nesterov``.

    Raises:
        CardError: ``copies`` below 1.

    References:
        Lin et al., "Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks", arXiv:1908.06281.
    """
    _demand(copies >= 1, f"copies={copies}: give at least 1")

    def refine(model: nn.Module, look: Look) -> tuple[Tensor, Memory]:
        grad = look.grad
        for copy in range(1, copies):
            grad = grad + gradient_through(model, look, partial(torch.mul, other=2.0**-copy))
        return grad / copies, ()

    ahead = decay if nesterov else 0.0
    direction = chain(unit(), momentum(decay))
    ascent = Ascent(steps, step_size, direction, random_start=False, lookahead=ahead, refine=refine)
    return ascend(model, clips, make_goal(model, clips, labels, seeds, loss, target), budget, seeds, ascent)


def vmi_fgsm(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    seeds: Tensor,
    *,
    steps: int = 10,
    step_size: float = 0.1,
    decay: float = 1.0,
    neighbours: int = 20,
    beta: float = 1.5,
    loss: str = "cross-entropy",
    target: Target = None,
) -> Tensor:
    """Correct each gradient by how much it differed from its neighbourhood one step before.

    m_{k+1} = μ·m_k + (g_k + v_k) / ‖g_k + v_k‖₁, v_0 = 0;  v_{k+1} = 1/N Σ_i ∇_x L(f(x_k + r_i)) - g_k, then as
    MI-FGSM. r_i is a random perturbation of β times the budget, U(-βε, βε) for linf; the paper has no other norm.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1]; it also meets points a little outside.
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: int64 ``(B,)``.
        budget: what the perturbation may be.
        seeds: int64 ``(B,)``, for the neighbours.
        steps: gradient steps K.
        step_size: α / ε.
        decay: μ.
        neighbours: N; with 0 this is MI-FGSM.
        beta: β.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        target: class to reach, see :func:`~robustvid.attacks.goal.make_goal`; any wrong one when None.

    Returns:
        Adversarial clips, same shape. Costs at most K + 1 + (K - 1)·N forwards and K + (K - 1)·N backwards a clip.

    Raises:
        CardError: ``neighbours`` or ``beta`` below 0.

    References:
        Wang & He, "Enhancing the Transferability of Adversarial Attacks through Variance Tuning", arXiv:2103.15571.
    """
    _demand(neighbours >= 0, f"neighbours={neighbours}: give 0 or more")
    _demand(beta >= 0, f"beta={beta}: give 0 or more")
    direction = chain(unit(), momentum(decay))
    refine = _tuned(steps, neighbours, beta) if neighbours else None
    ascent = Ascent(steps, step_size, direction, random_start=False, refine=refine)
    return ascend(model, clips, make_goal(model, clips, labels, seeds, loss, target), budget, seeds, ascent)


def gradient_through(model: nn.Module, look: Look, view: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the gradient with respect to the point of a look when the model sees ``view`` of it."""
    return view_gradient(model, look.point, view, look.problem.goal)[0]


def smooth(kernel: int, sigma: float) -> Direction:
    """Convolve each frame of the gradient with a Gaussian of at most ``kernel`` pixels that sums to 1.

    Raises:
        CardError: ``kernel`` is not odd, or ``sigma`` not above 0.
    """
    _demand(kernel >= 1 and kernel % 2 == 1, f"kernel={kernel}: give an odd number of pixels")
    _demand(sigma > 0, f"sigma={sigma}: give a number of pixels above 0")

    def update(grad: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        rows, columns = (_gaussian(length, kernel, sigma).to(grad) for length in grad.shape[-2:])
        # Clip by clip, because a product over the batch may round differently in another batch.
        return torch.stack([rows @ clip @ columns for clip in grad]), memory

    return Direction(lambda _: (), update)


def _gaussian(length: int, kernel: int, sigma: float) -> Tensor:
    """Return convolution along an axis as a symmetric matrix, zeros beyond the ends."""
    places = torch.arange(length, dtype=torch.float64)
    reach = min(kernel // 2, (length - 1) // 2)
    distance = (places[:, None] - places).abs()
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    total = (-0.5 * (offsets / sigma).square()).exp().sum()
    return torch.where(distance <= reach, (-0.5 * (distance / sigma).square()).exp() / total, 0.0)


def _only_logits(model: nn.Module, clips: Tensor, _goal: Goal, _seeds: Tensor, _step: int) -> tuple[Tensor, Tensor]:
    """Score the clips; the gradient is left to the refinement."""
    with torch.no_grad():
        return torch.zeros_like(clips), model(clips)


def _resizing(seed: int, probability: float, smallest: float, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the matrices that resize and pad the rows and columns of every frame; None to leave them."""
    chance, share, *places = torch.rand(4, generator=torch.Generator().manual_seed(seed % 2**63)).tolist()
    if chance >= probability:
        return None
    lengths = like.shape[-2:]
    sizes = [max(1, round(length * (smallest + (1 - smallest) * share))) for length in lengths]
    offsets = [int(place * (length - size + 1)) for place, length, size in zip(places, lengths, sizes, strict=True)]
    rows, columns = (_shrinking(*axis).to(like) for axis in zip(lengths, sizes, offsets, strict=True))
    return rows, columns.T


def _shrinking(length: int, size: int, offset: int) -> Tensor:
    """Return linear interpolation of an axis to ``size`` samples, put at ``offset`` among zeros, as a matrix."""
    places = ((torch.arange(size, dtype=torch.float64) + 0.5) * length / size - 0.5).clamp(0, length - 1)
    weights = (1 - (places[:, None] - torch.arange(length)).abs()).clamp_min(0)
    return F.pad(weights, (0, 0, offset, length - size - offset))


def _resized(clips: Tensor, matrices: list[tuple[Tensor, Tensor] | None]) -> Tensor:
    # Products with matrices, not interpolate(): its gradient on a GPU is summed in an order that changes.
    seen = [clip if pair is None else pair[0] @ clip @ pair[1] for clip, pair in zip(clips, matrices, strict=True)]
    return torch.stack(seen)


def _tuned(steps: int, neighbours: int, beta: float) -> Refinement:
    """Return variance tuning; its memory is v."""

    def refine(model: nn.Module, look: Look) -> tuple[Tensor, Memory]:
        grad = look.grad + look.memory[0] if look.memory else look.grad
        if look.step == steps - 1:
            return grad, look.memory  # v would not be used any more
        total = torch.zeros_like(look.grad)
        for number in range(neighbours):
            seeds = look.problem.seeds + (1 + look.step * neighbours + number) * _DRAW
            noise = beta * draw(look.problem, seeds)
            total = total + gradient_through(model, look, partial(torch.add, other=noise))
        return grad, (total / neighbours - look.grad,)

    return refine


def _demand(holds: bool, otherwise: str) -> None:  # noqa: FBT001
    if not holds:
        raise CardError(otherwise)
