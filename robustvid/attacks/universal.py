"""Universal perturbation: one perturbation, fitted on training clips, added to every clip."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustvid.attacks.goal import Goal
from robustvid.budget import Budget
from robustvid.contracts import frozen
from robustvid.errors import AttackError, BudgetError, CardError
from robustvid.losses import check_loss

_CHUNK = 16  # clips whose graph is held at once, whatever the batch


def universal(
    model: nn.Module,  # noqa: ARG001  the contract's five inputs; a fitted perturbation asks nothing
    clips: Tensor,
    labels: Tensor,  # noqa: ARG001
    budget: Budget,
    seeds: Tensor,  # noqa: ARG001
    *,
    delta: Tensor | None = None,
    epochs: int = 10,  # noqa: ARG001  from here on for fit_universal
    step_size: float = 0.1,  # noqa: ARG001
    batch_size: int = 32,  # noqa: ARG001
    roll: bool = True,  # noqa: ARG001
    loss: str = "margin",  # noqa: ARG001
    training_clips: int = 500,  # noqa: ARG001
) -> Tensor:
    """Add a perturbation that was fitted beforehand: x' = clamp(x + P_S(δ)), the same δ for every clip.

    An evaluation fits δ by :func:`fit_universal`, once for each budget, on clips of its ``training`` data.

    Args:
        model: not asked.
        clips: ``(B, C, T, H, W)`` in [0, 1].
        labels: not looked at.
        budget: what the perturbation may be; δ is projected into each clip's own.
        seeds: not used.
        delta: δ, ``(1, C, T, H, W)``, or ``(B, C, T, H, W)`` where each clip has its own.
        epochs: of the fit.
        step_size: of the fit.
        batch_size: of the fit.
        roll: of the fit.
        loss: of the fit.
        training_clips: how many clips an evaluation takes from the training data.

    Returns:
        Adversarial clips, same shape. Costs nothing a clip, after a fit of epochs · ``training_clips`` forwards and
        backwards for each budget.

    Raises:
        AttackError: there is no δ, or it does not fit the clips.

    References:
        Moosavi-Dezfooli et al., "Universal adversarial perturbations", arXiv:1610.08401.
    """
    if delta is None:
        raise AttackError(
            "universal has no perturbation yet: give training clips to the evaluation "
            '(rv.evaluate(..., training=rv.load_data(..., split="train"))), or '
            "delta=fit_universal(model, training_clips, labels, budget) to the function"
        )
    if delta.ndim != clips.ndim or delta.shape[1:] != clips.shape[1:] or len(delta) not in {1, len(clips)}:
        raise AttackError(
            f"delta is {tuple(delta.shape)} for clips {tuple(clips.shape)}; fit it on clips of this shape"
        )
    return (clips + budget.project(delta.detach().to(clips).expand_as(clips))).clamp(0, 1)


def fit_universal(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    epochs: int = 10,
    step_size: float = 0.1,
    batch_size: int = 32,
    roll: bool = True,
    loss: str = "margin",
    seed: int = 0,
) -> Tensor:
    """Fit one perturbation that raises the mean loss over all clips: universal projected steepest ascent.

    δ ← P_S(δ + α·s(mean_i ∇_δ L(f(clamp(x_i + roll(δ, r))), y_i))), over minibatches in random order, from a random
    point of the budget S, with s the steepest point of S and α = ``step_size`` times the radius. r is a number of
    frames drawn for every step, so that δ works wherever in time it begins. With ``budget.frames`` the frames are
    those of largest mean gradient at the clean clips of the first minibatch.

    Deviations from the papers: no generator network (Li et al.) and no minimal perturbation for each clip in turn
    (Moosavi-Dezfooli et al.), but the plain ascent of Shafahi et al.; any wrong class counts, none is preserved.

    Args:
        model: returns logits ``(B, K)`` for clips in [0, 1]; lent out frozen.
        clips: training clips ``(N, C, T, H, W)``, floats in [0, 1] or uint8; minibatches are moved to the device of
            ``labels``.
        labels: int64 ``(N,)``, on the model's device.
        budget: what δ may be.
        epochs: passes over the clips.
        step_size: α / ε.
        batch_size: clips of a step.
        roll: roll δ in time at random.
        loss: ``cross-entropy``, ``margin`` or ``dlr``.
        seed: of the start, the minibatches and the rolls.

    Returns:
        δ ``(1, C, T, H, W)``. Costs epochs · N forwards and backwards, one minibatch more with ``budget.frames``.

    Raises:
        BudgetError: the budget has a radius for each clip; a universal perturbation has one.
        CardError: a setting under which nothing would be fitted.

    References:
        Shafahi et al., "Universal Adversarial Training", arXiv:1811.11304.
        Li et al., "Stealthy Adversarial Perturbations Against Real-Time Video Classification Systems",
        arXiv:1807.00458 (the rolls).
    """
    if epochs < 1 or batch_size < 1 or not step_size > 0:
        raise CardError(f"epochs={epochs}, batch_size={batch_size}, step_size={step_size}: give numbers above 0")
    if any(isinstance(value, Tensor) for value in vars(budget).values()):
        raise BudgetError("a universal perturbation is fitted for one budget: give plain radii, not one for each clip")
    crowd, frames = _Crowd(model, clips, labels, check_loss(loss)), clips.shape[2]
    generator = torch.Generator().manual_seed(seed % 2**63)
    with frozen(model):
        free, like = replace(budget, frames=None), crowd.batch(torch.tensor([0]))[0]
        mask = torch.ones_like(like[:, :1, :, :1, :1])
        if budget.frames is not None:
            mask = budget.salient(crowd.gradient(torch.zeros_like(like), torch.arange(len(clips))[:batch_size]))
        delta = free.project(free.start(like, torch.tensor([seed])) * mask)
        for _ in range(epochs):
            for some in torch.randperm(len(clips), generator=generator).split(batch_size):
                shift = int(torch.randint(frames, (), generator=generator)) if roll else 0
                grad = crowd.gradient(delta.roll(shift, 2), some).roll(-shift, 2)
                delta = budget.project(delta + step_size * free.steepest(grad * mask))
    return delta


universal.fit = fit_universal  # type: ignore[attr-defined]  # an evaluation looks for it


class _Crowd(NamedTuple):
    """The clips that a perturbation is fitted on."""

    model: nn.Module
    clips: Tensor
    labels: Tensor
    loss: str

    def batch(self, some: Tensor) -> tuple[Tensor, Tensor]:
        """Return some clips, as floats in [0, 1], and their labels."""
        clips, device = self.clips[some.to(self.clips.device)], self.labels.device
        if not clips.is_floating_point():
            clips = clips.float() / 255
        return clips.to(device), self.labels[some.to(device)]

    def gradient(self, delta: Tensor, some: Tensor) -> Tensor:
        """Return the gradient of the mean loss of some clips with respect to the perturbation they share."""
        total = torch.zeros_like(delta)
        for part in some.split(_CHUNK):
            clips, labels = self.batch(part)
            with torch.enable_grad():
                leaf = delta.detach().requires_grad_()
                value = Goal(labels, self.loss).value(self.model((clips + leaf).clamp(0, 1)))
                total += torch.autograd.grad(value.sum(), leaf)[0].nan_to_num(0.0, 0.0, 0.0)
        return total / len(some)
