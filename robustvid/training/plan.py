"""The plan of a training: everything that decides what comes out, in words and numbers that JSON can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from robustvid.budget import Budget
from robustvid.errors import CardError
from robustvid.registry import did_you_mean

MIXES = ("average", "max", "random")
SCHEDULES = ("constant", "curriculum", "reverse", "adaptive")
PRECISIONS = ("fp32", "bf16", "fp16")
_LEAST = {"epochs": 1, "batch_size": 1, "accumulate": 1, "holdout": 0, "weight_decay": 0, "awp": 0}


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides what training does; the same plan on the same machine gives the same weights.

    Attributes:
        epochs: passes over the training clips.
        batch_size: clips per step.
        lr: highest learning rate of the one-cycle schedule (Smith & Topin, arXiv:1708.07120).
        weight_decay: of AdamW (Loshchilov & Hutter, arXiv:1711.05101).
        seed: order, time and shift of the training clips, every random start, and the random numbers of the model.
        objective: name in ``OBJECTIVES``, with settings where wanted: ``"trades:beta=3"``.
        threats: what to train against: budgets as :meth:`Budget.describe` writes them, each after an attack card and
            ``@`` where that attack shall find the clips: ``"linf frame 8/255"``, ``"flicker @ linf frame 16/255"``.
            They also say what validation measures, for ``natural`` too.
        mix: with several threats: ``average`` their losses, take each clip's ``max``, or one at ``random`` per batch.
        schedule: of the radii: ``constant``; ``curriculum``, rising from 0 over the first three quarters;
            ``reverse``, the same backwards; ``adaptive``, drawn per batch where the validation loss is high.
        holdout: so many clips of the training split (at most a fifth) are kept out of training; every epoch is
            measured on them, and the best by robust accuracy is the one returned. With 0 it is the last one.
        awp: relative size γ of adversarial weight perturbation; 0 is without.
        ema: decay of the averaged weights that are measured and returned; 0 is without.
        accumulate: parts that a batch is worked on in, one after the other, for models that need the memory.
        precision: ``fp32``, or ``bf16`` and ``fp16`` for forwards and backwards under autocast.
        sync_batchnorm: with several GPUs, statistics over all of them.
        roll: shift clips around the edges at random; for datasets whose world wraps around, such as motion10.
        keep_zeros: weights of more than one dimension that are zero at the start stay zero: a pruned model's.
        in_memory: decode all videos once and keep them, 354 MB for motion10, rather than anew in every epoch;
            only for datasets of video files that are all of one size and length.

    Raises:
        CardError: a setting means nothing.
    """

    epochs: int
    batch_size: int = 32
    lr: float = 5e-3
    weight_decay: float = 1e-2
    seed: int = 0
    objective: str = "natural"
    threats: tuple[str, ...] = ()
    mix: str = "average"
    schedule: str = "constant"
    holdout: int = 128
    awp: float = 0.0
    ema: float = 0.0
    accumulate: int = 1
    precision: str = "fp32"
    sync_batchnorm: bool = False
    roll: bool = False
    keep_zeros: bool = False
    in_memory: bool = False

    def __post_init__(self) -> None:
        """Refuse what means nothing; JSON's lists become tuples."""
        object.__setattr__(self, "threats", tuple(self.threats))
        for name, known in (("mix", MIXES), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in known:
                hint = did_you_mean(str(value), known)
                raise CardError(f"{name}={value!r} is none of {', '.join(known)}.{hint}")
        for name, low in _LEAST.items():
            if not low <= getattr(self, name) < math.inf:
                raise CardError(f"{name}={getattr(self, name)}: give a finite number of at least {low}")
        if not 0 < self.lr < math.inf:
            raise CardError(f"lr={self.lr}: give a finite number above 0")
        if not 0 <= self.ema < 1:
            raise CardError(f"ema={self.ema}: give a decay of at least 0 and below 1")
        if self.awp and self.accumulate > 1:
            raise CardError("awp needs the gradient of a whole batch: give accumulate=1")
        if self.schedule == "adaptive" and not (self.threats and self.holdout):
            raise CardError("the adaptive schedule measures losses on held-out clips: give threats and a holdout")


class Threat(NamedTuple):
    """One thing to train against: a budget, and the card of the attack that finds clips in it, if any is named."""

    budget: Budget
    attack: str | None


def parse_threat(text: str) -> Threat:
    """Read ``"linf frame 8/255"`` or ``"flicker @ linf frame 16/255"``.

    Raises:
        BudgetError: the budget cannot be read.
    """
    attack, at, budget = text.rpartition("@")
    return Threat(Budget.parse(budget), attack.strip() if at else None)
