"""What a batch does to the model: adversarial clips are found, their gradients added up, and the weights moved."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustvid.budget import Budget
from robustvid.contracts import frozen
from robustvid.losses import cross_entropy
from robustvid.models.classifier import VideoClassifier
from robustvid.ranks import Ranks
from robustvid.training.awp import perturbed_weights
from robustvid.training.method import Method
from robustvid.training.objectives import follow
from robustvid.training.plan import TrainingPlan
from robustvid.training.schedule import radius_factor
from robustvid.training.trainee import Trainee, autocast


@dataclass
class Tally:
    """Sums over the epoch so far, on the device, so that no step waits for them."""

    loss: Tensor
    right: Tensor
    clips: int = 0
    updates: int = 0

    @classmethod
    def empty(cls, device: torch.device) -> Tally:
        """Return a tally of nothing yet."""
        zero = torch.zeros((), dtype=torch.float64, device=device)
        return cls(zero, torch.zeros((), dtype=torch.int64, device=device))

    def mean_loss(self) -> float:
        """Return the mean over the updates; a GPU is waited for."""
        return float(self.loss) / max(self.updates, 1)


class _Part(NamedTuple):
    """Some clips of a batch, as many as fit the memory at once."""

    clips: Tensor
    labels: Tensor
    seeds: Tensor


class Learner:
    """A model in training, with all that an update moves.

    Attributes:
        model: changed in place.
        steps: updates in all.
        step: updates made.
        seen: clips learnt from since this process began, in all processes.
        shares: how likely the adaptive schedule draws each radius; empty until it is told.
        tally: of this epoch; whoever ends the epoch empties it.
    """

    def __init__(self, model: VideoClassifier, plan: TrainingPlan, method: Method, ranks: Ranks, batches: int) -> None:
        """Prepare a training of ``batches`` batches, which changes ``model``.

        Raises:
            RunError: the plan asks for ``sync_batchnorm`` where there is no GPU.
        """
        self.model, self.plan, self.method, self.ranks = model, plan, method, ranks
        self.device = model.mean.device
        self.replays = method.objective.replays
        self.step, self.steps, self.seen = 0, batches * self.replays, 0
        self.shares: list[float] = []
        self.tally = Tally.empty(self.device)
        self.optimizer = torch.optim.AdamW(model.parameters(), plan.lr, weight_decay=plan.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, plan.lr, total_steps=self.steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=plan.precision == "fp16")
        average = get_ema_multi_avg_fn(plan.ema)
        self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True) if plan.ema else None
        if plan.keep_zeros:
            _keep_zeros(model)
        self.spread = ranks.spread(model.train(), sync_batchnorm=plan.sync_batchnorm)

    @property
    def measured(self) -> VideoClassifier:
        """The model that is measured and kept: the averaged one where there is one."""
        return self.model if self.averaged is None else cast("VideoClassifier", self.averaged.module)

    def radius(self, draw: int = 0) -> float:
        """Return what the radii are multiplied by at this step; ``draw`` seeds the adaptive schedule."""
        return radius_factor(self.plan.schedule, self.step / self.steps, self.shares, draw)

    def learn(self, clips: Tensor, labels: Tensor) -> None:
        """Make the updates of one batch: one, or as many as the objective replays it.

        Args:
            clips: ``(B, C, T, H, W)`` in [0, 1], this process's share of the batch.
            labels: int64 ``(B,)``.
        """
        chosen, parts = self._chosen(), self._parts(clips, labels)
        factor = self.radius(_draw(self.plan.seed, self.step, "radius"))
        budgets = [self.method.threats[i].budget.scaled(factor) for i in chosen]
        found = [self._adversaries(part, chosen, budgets) for part in parts]
        for replay in range(self.replays):
            if replay:
                found = [
                    [_followed(part.clips, one, budgets[0]) for one in each]
                    for part, each in zip(parts, found, strict=True)
                ]
            self._update(parts, found)
        self.seen += len(clips) * self.ranks.size

    def average_buffers(self) -> None:
        """Give all processes the same BatchNorm statistics."""
        self.ranks.average_buffers(self.model)
        if self.averaged is not None:
            self.ranks.average_buffers(self.averaged.module)

    def state_dict(self) -> dict[str, Any]:
        """Return what an update depends on, as values that ``torch.load`` reads without running code."""
        return {
            "step": self.step,
            "shares": self.shares,
            "tally": asdict(self.tally),
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring back what :meth:`state_dict` returned; further entries are left alone."""
        self.step, self.shares, self.tally = state["step"], state["shares"], Tally(**state["tally"])
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])

    def _update(self, parts: list[_Part], found: list[list[Tensor]]) -> None:
        """Make one step of the optimizer on a batch that comes in parts."""
        self.optimizer.zero_grad()
        whole = sum(len(part.clips) for part in parts)
        for place, (part, adversarial) in enumerate(zip(parts, found, strict=True)):
            with _no_sync(self.spread) if place < len(parts) - 1 else nullcontext():
                self._backward(part, adversarial, len(part.clips) / whole)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self.step += 1
        self.tally.updates += 1

    def _backward(self, part: _Part, adversarial: list[Tensor], weight: float) -> None:
        """Add the gradient of one part of the batch."""
        near = perturbed_weights(self.model, lambda: self._loss(self.model, part, adversarial)[0], self.plan.awp)
        with near if self.plan.awp else nullcontext():
            value, logits = self._loss(self.spread, part, adversarial)
            self.scaler.scale(value * weight).backward()
        self.tally.loss += value.detach().double() * weight
        self.tally.right += (logits.argmax(1) == part.labels).sum()
        self.tally.clips += len(part.clips)

    def _loss(self, model: nn.Module, part: _Part, adversarial: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss, averaged over the threats, and the logits of the first."""
        with autocast(self.device, self.plan.precision):
            each = [
                self.method.objective.loss(model, part.clips, one, part.labels) for one in adversarial or [part.clips]
            ]
        return torch.stack([value for value, _ in each]).mean(), each[0][1].detach()

    def _adversaries(self, part: _Part, chosen: list[int], budgets: list[Budget]) -> list[Tensor]:
        """Return the adversarial clips to learn, a batch for every threat that counts; none where none are needed."""
        if not self.method.finds:
            return []
        trainee, (clips, labels, seeds) = Trainee(self.model, self.plan.precision), part
        with frozen(trainee):
            found = [
                self.method.finds[i](trainee, clips, labels, budget, seeds).detach()
                for i, budget in zip(chosen, budgets, strict=True)
            ]
            if self.plan.mix == "max" and len(found) > 1:
                with torch.no_grad():
                    worst = torch.stack([cross_entropy(trainee(one), labels) for one in found]).argmax(0)
                found = [torch.stack(found)[worst, torch.arange(len(clips), device=clips.device)]]
        return [one.requires_grad_() for one in found] if self.replays > 1 else found

    def _parts(self, clips: Tensor, labels: Tensor) -> list[_Part]:
        count, seeds = min(self.plan.accumulate, len(clips)), self._seeds(len(clips))
        return [_Part(*each) for each in zip(*(t.tensor_split(count) for t in (clips, labels, seeds)), strict=True)]

    def _chosen(self) -> list[int]:
        """Return which threats this batch meets."""
        count = len(self.method.finds)
        if self.plan.mix == "random" and count > 1:
            return [_draw(self.plan.seed, self.step, "threat") % count]
        return list(range(count))

    def _seeds(self, count: int) -> Tensor:
        """Return a seed for each clip, of this rank's share of the batch."""
        base = _draw(self.plan.seed, self.step, f"rank {self.ranks.rank}")
        return torch.randint(2**62, (count,), generator=torch.Generator().manual_seed(base))


def _followed(clips: Tensor, adversarial: Tensor, budget: Budget) -> Tensor:
    """Return where the gradient that the update before has left leads to, by a step as long as the radius."""
    assert adversarial.grad is not None  # for the type checker
    grad = adversarial.grad.nan_to_num(0.0, 0.0, 0.0)
    return follow(clips, adversarial.detach(), grad, budget, 1.0).requires_grad_()


def _keep_zeros(model: nn.Module) -> None:
    """Give what is zero no gradient: AdamW then leaves it zero, and so does an average over updates."""
    for weight in model.parameters():
        if weight.ndim > 1 and weight.requires_grad:
            weight.register_hook(partial(torch.mul, (weight.detach() != 0).to(weight)))


def _no_sync(spread: nn.Module) -> AbstractContextManager[None]:
    """Return the context in which gradients stay in this process: they travel once a step."""
    return spread.no_sync() if isinstance(spread, DistributedDataParallel) else nullcontext()


def _draw(seed: int, step: int, what: str) -> int:
    digest = hashlib.sha256(f"{seed}\0{step}\0{what}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
