"""What is measured after every epoch, on training clips kept out of training, and what it warns of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustvid.contracts import ClipSpec, VideoDataset, frozen
from robustvid.data.transforms import to_clips
from robustvid.errors import DecodeError
from robustvid.evaluation.cards import load_attack
from robustvid.losses import cross_entropy
from robustvid.training.plan import Threat
from robustvid.training.schedule import GRID
from robustvid.training.trainee import Trainee

_BATCH = 32
_PROBE = "pgd:steps=10,step_size=0.25"
_FEW = 32  # clips that the adaptive schedule looks at
_GAP = 0.2  # FGSM minus PGD accuracy from which a model may have learnt to fool single steps
_NONE, _MANY = 0.1, 0.5  # shares that stand against ten steps and against one where nothing robust was ever learnt
_DROP = 0.1  # below the best robust accuracy so far: over twice the standard error of 128 clips


@dataclass(frozen=True)
class Held:
    """Clips kept out of training: uint8 frames ``(T, H, W, 3)`` each, and labels int64 ``(N,)``."""

    frames: Sequence[Tensor]
    labels: Tensor

    def batches(self, device: torch.device, count: int | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield clips, labels and seeds, the seeds the same at every epoch."""
        numbers = torch.arange(len(self.labels))[:count]
        for part in numbers.split(_BATCH):
            clips = to_clips([self.frames[i] for i in part.tolist()])
            yield clips.to(device), self.labels[part].to(device), part


class Split(NamedTuple):
    """Numbers of the videos to train on, and the clips held out."""

    training: list[int]
    held: Held


def hold_out(
    data: VideoDataset,
    clip: ClipSpec,
    count: int,
    seed: int,
    left_out: Callable[[DecodeError], None] | None = None,
) -> Split:
    """Draw the clips to hold out, and cut them as a test split is cut.

    Where the dataset tells groups, such as the scenes that UCF101's videos were cut from, whole groups are held out.

    Args:
        data: the training split.
        clip: how clips are cut.
        count: how many, at most a fifth of all; the last group may exceed it.
        seed: of the draw.
        left_out: told of every drawn video that cannot be read, which is then held out and not measured.

    Raises:
        DecodeError: a drawn video cannot be read, and ``left_out`` is None.
    """
    groups = getattr(data, "groups", None) or [""] * len(data)
    mates: dict[object, list[int]] = {}
    keys = [group or number for number, group in enumerate(groups)]
    for number, key in enumerate(keys):
        mates.setdefault(key, []).append(number)
    chosen: set[int] = set()
    for number in np.random.default_rng([seed, 1]).permutation(len(data)).tolist():
        if len(chosen) >= min(count, len(data) // 5):
            break
        chosen.update(mates[keys[number]])
    samples = []
    for number in sorted(chosen):
        try:
            samples.append(data.sample(number, clip))
        except DecodeError as error:
            if left_out is None:
                raise
            left_out(error)
    held = Held([s.frames for s in samples], torch.tensor([s.label for s in samples], dtype=torch.int64))
    return Split([number for number in range(len(data)) if number not in chosen], held)


def validate(model: nn.Module, held: Held, threats: Sequence[Threat]) -> dict[str, float]:
    """Return accuracies on the held-out clips, keyed as the history names them; empty where there are none.

    ``val/robust_acc`` counts clips that stand against every threat: PGD with 10 steps, or the threat's own attack.
    ``val/fgsm_acc`` is one step against the first threat that names no attack, for the alarm.

    Args:
        model: left as it was.
        held: the clips.
        threats: what to measure; clean accuracy alone without any.
    """
    if not len(held.labels):
        return {}
    device = next(model.parameters()).device
    plain = next((threat for threat in threats if threat.attack is None), None)
    counts = dict.fromkeys(["val/clean_acc"] + ["val/robust_acc"] * bool(threats) + ["val/fgsm_acc"] * bool(plain), 0)
    with frozen(model):
        for clips, labels, seeds in held.batches(device):
            clean = standing = _right(model, clips, labels)
            counts["val/clean_acc"] += int(clean.sum())
            for threat in threats:
                standing = standing & _right(model, _attacked(model, clips, labels, threat, seeds), labels)
            if threats:
                counts["val/robust_acc"] += int(standing.sum())
            if plain:
                found = load_attack("fgsm")(model, clips, labels, plain.budget, seeds)
                counts["val/fgsm_acc"] += int((clean & _right(model, found, labels)).sum())
    return {name: count / len(held.labels) for name, count in counts.items()}


def radius_shares(model: nn.Module, held: Held, threats: Sequence[Threat]) -> list[float]:
    """Return how likely the adaptive schedule draws each radius of ``GRID``: its share of the mean validation losses.

    Kinfu & Vidal, CVPRW 2022; measured on the first held-out training clips, and averaged over all of those.
    """
    device = next(model.parameters()).device
    losses = []
    with frozen(model):
        for factor in GRID:
            total = 0.0
            for clips, labels, seeds in held.batches(device, _FEW):
                for threat in threats:
                    scaled = threat._replace(budget=threat.budget.scaled(factor))
                    found = _attacked(Trainee(model, "fp32"), clips, labels, scaled, seeds)
                    with torch.no_grad():
                        logits = model(found)
                    total += float(cross_entropy(logits, labels).sum())
            losses.append(total)
    whole = sum(losses)
    return [loss / whole for loss in losses] if whole > 0 else [1 / len(GRID)] * len(GRID)


def alarms(history: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the last epoch of a training warns of, in words that begin with the alarm's name.

    ``catastrophic-overfitting``: one step fools the model far less often than ten do, and robust accuracy has gone,
    never came up, or has been half of its best for two epochs.
    ``robust-overfitting``: for two epochs robust accuracy has been below its best while more training clips are right.
    """
    now, before = history[-1], history[:-1]
    if "val/robust_acc" not in now:
        return []
    robust, one_step = now["val/robust_acc"], now.get("val/fgsm_acc", 0.0)
    best = max(before, key=lambda record: record["val/robust_acc"], default=now)
    halved = [
        record["val/robust_acc"] < best["val/robust_acc"] / 2
        and record.get("val/fgsm_acc", 0.0) - record["val/robust_acc"] > _GAP
        for record in history[-2:]
    ]
    gone = robust < _NONE and one_step - robust > _GAP and (halved[-1] or one_step > _MANY)
    if gone or (len(halved) == 2 and all(halved)):  # one epoch of half the accuracy may be chance
        return [
            f"catastrophic-overfitting: {robust:.0%} of the held-out clips stand against ten steps and {one_step:.0%} "
            "against one; train with noise (n-fgsm) or more steps (pgd)"
        ]
    fallen = [
        record["val/robust_acc"] < best["val/robust_acc"] - _DROP and record["train/acc"] > best["train/acc"]
        for record in history[-2:]
    ]
    if len(fallen) == 2 and all(fallen):
        return [
            f"robust-overfitting: {robust:.0%} of the held-out clips stand, {best['val/robust_acc']:.0%} did after "
            f"epoch {best['epoch']}, though more of the training clips are right; the better weights are kept"
        ]
    return []


def _attacked(model: nn.Module, clips: Tensor, labels: Tensor, threat: Threat, seeds: Tensor) -> Tensor:
    return load_attack(threat.attack or _PROBE)(model, clips, labels, threat.budget, seeds)


def _right(model: nn.Module, clips: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        right: Tensor = model(clips).argmax(1) == labels
    return right
