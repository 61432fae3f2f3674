"""Attacks that are fitted on training clips first: one perturbation for each budget, kept in the run folder.

An attack function takes part by an attribute ``fit``: ``fit(model, clips, labels, budget, **knobs) -> delta`` with
uint8 clips ``(N, C, T, H, W)``, labels on the model's device, and, where it names them, ``seed`` and parameters of the
attack; ``delta`` is ``(1, C, T, H, W)``. The attack is then called with ``delta=``, the perturbation of each clip's
budget, ``(B, C, T, H, W)``. A parameter ``training_clips`` of the attack limits N.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robustvid.budget import Budget
from robustvid.contracts import ClipSpec, VideoDataset, clip_seed
from robustvid.errors import AttackError
from robustvid.evaluation.cards import Attack
from robustvid.evaluation.probe import Probe
from robustvid.evaluation.threats import Threat
from robustvid.evaluation.verdict import load_clip

log = logging.getLogger("robustvid")


def fitted(groups: Sequence[Sequence[Attack]]) -> list[Attack]:
    """Return those attacks that are fitted on training clips first."""
    return [attack for group in groups for attack in group if _fit_of(attack)]


def training_facts(
    training: VideoDataset | None, data: VideoDataset, groups: Sequence[Sequence[Attack]]
) -> dict[str, Any]:
    """Return what the spec says of the training data; nothing where no attack is fitted on it.

    Raises:
        AttackError: an attack needs training data and there is none.
    """
    attacks = fitted(groups)
    if not attacks:
        return {}
    if training is None:
        raise AttackError(_no_training(attacks[0]))
    facts = {"name": training.name, "split": training.split, "digest": getattr(training, "digest", None)}
    if facts == {"name": data.name, "split": data.split, "digest": getattr(data, "digest", None)}:
        log.warning("%s is fitted on the very split it is measured on, %s", attacks[0].name, data.split)
    clips = max(min(_clips_of(attack, len(training)), len(training)) for attack in attacks)
    return {"training": facts | {"videos": len(training), "clips": clips}}


class Fitter:
    """Fits each attack once for each budget, when it is first needed, or reads what an earlier run has fitted.

    The cost of a fit is in the rows of the batch that needed it, and in the metadata of its file.

    Args:
        probe: the model that is attacked.
        device: where it is.
        training: labelled videos to fit on; None where no attack is fitted.
        order: places of the training videos, in the order in which they are taken.
        clip: how to cut them.
        seed: of the run.
        folder: where perturbations are kept; None keeps them in memory only.
    """

    def __init__(  # noqa: PLR0917  what a fit needs, put together in one place
        self,
        probe: Probe,
        device: torch.device,
        training: VideoDataset | None,
        order: Sequence[int],
        clip: ClipSpec,
        seed: int,
        folder: Path | None,
    ) -> None:
        self.probe, self.device, self.training, self.order = probe, device, training, order
        self.clip, self.seed, self.folder = clip, seed, folder
        self._deltas: dict[tuple[str, str, int], Tensor] = {}
        self._loaded: tuple[Tensor, Tensor] | None = None

    def ready(self, attack: Attack, threat: Threat, cells: Sequence[int]) -> Attack:
        """Return the attack with the perturbation of each clip's budget; as it is where it needs none."""
        fit = _fit_of(attack)
        if fit is None:
            return attack
        for cell in sorted(set(cells)):
            if (attack.key, threat.name, cell) not in self._deltas:
                self._deltas[attack.key, threat.name, cell] = self._find(attack, fit, threat, threat.budgets[cell])
        delta = torch.cat([self._deltas[attack.key, threat.name, cell] for cell in cells])
        return replace(attack, params=dict(attack.params) | {"delta": delta.to(self.device)})

    def _find(self, attack: Attack, fit: Callable[..., Tensor], threat: Threat, budget: Budget) -> Tensor:
        about = {"attack": attack.name, "key": attack.key, "budget": budget.describe()}
        if self.folder is None:
            return self._fit(attack, fit, budget)[0]
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{attack.name}-{threat.name}-{budget.describe()}")
        path = self.folder / f"{name}.safetensors"
        delta = self._read(path, budget, about) if path.is_file() else None
        if delta is None:
            delta, cost = self._fit(attack, fit, budget)
            _write(path, delta, about | cost)
        return delta

    def _fit(self, attack: Attack, fit: Callable[..., Tensor], budget: Budget) -> tuple[Tensor, dict[str, str]]:
        if self.training is None:
            raise AttackError(_no_training(attack))
        clips, labels = self._training_clips(self.training, _clips_of(attack, len(self.order)))
        log.info("fitting %s on %d clips for %s", attack.name, len(clips), budget.describe())
        begin = self.probe.forwards, self.probe.backwards, time.perf_counter()
        offered = attack.arguments() | {"seed": clip_seed(self.seed, "training", attack.key)}
        knobs = {name: value for name, value in offered.items() if name in inspect.signature(fit).parameters}
        delta = fit(self.probe, clips, labels.to(self.device), budget, **knobs).detach().cpu()
        if delta.shape != (1, *clips.shape[1:]) or not bool(torch.isfinite(delta).all()):
            raise AttackError(f"the fit of {attack.name} returned {tuple(delta.shape)}, or values that are not finite")
        end = self.probe.forwards, self.probe.backwards, time.perf_counter()
        names = ("forwards", "backwards", "seconds")
        return delta, {name: f"{after - before:g}" for name, before, after in zip(names, begin, end, strict=True)}

    def _training_clips(self, training: VideoDataset, count: int) -> tuple[Tensor, Tensor]:
        """Return the first clips of the order, decoded once a run."""
        if self._loaded is None or len(self._loaded[1]) < min(count, len(self.order)):
            loaded = [load_clip(training, index, self.clip) for index in self.order[:count]]
            labels = torch.tensor([clip.label for clip in loaded])
            self._loaded = torch.stack([clip.pixels for clip in loaded]), labels
        clips, labels = self._loaded
        return clips[:count], labels[:count]

    def _read(self, path: Path, budget: Budget, about: dict[str, str]) -> Tensor | None:
        """Return the perturbation in a file; None, with a warning, where the file cannot be used."""
        wanted = (1, 3, self.clip.length, *self.clip.size)
        try:
            delta, found = read_perturbation(path)
        except AttackError as error:
            log.warning("%s; it is fitted again", error)
            return None
        other = {name: found.get(name) for name in about if found.get(name) != about[name]}
        if other or tuple(delta.shape) != wanted or not bool(torch.isfinite(delta).all()):
            log.warning("%s is not what this run needs and is fitted again: %s %s", path, tuple(delta.shape), other)
            return None
        if float(budget.size(delta)) > 1:
            log.warning("%s is outside %s and is fitted again", path, budget.describe())
            return None
        return torch.as_tensor(delta)


def read_perturbation(path: str | Path) -> tuple[Tensor, dict[str, str]]:
    """Return a fitted perturbation ``(1, C, T, H, W)``, and what its file says of it.

    Raises:
        AttackError: there is no such file, or it holds none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("delta"), file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise AttackError(f"{path} holds no perturbation: {error}") from error


def _no_training(attack: Attack) -> str:
    return (
        f"{attack.name} is fitted on training clips before it is measured, and there are none: "
        'pass training=rv.load_data(NAME, split="train") to rv.evaluate'
    )


def _fit_of(attack: Attack) -> Callable[..., Tensor] | None:
    return getattr(attack.function, "fit", None)


def _clips_of(attack: Attack, otherwise: int) -> int:
    return int(attack.arguments().get("training_clips", otherwise))


def _write(path: Path, delta: Tensor, about: dict[str, str]) -> None:
    """Write a perturbation whole or not at all; what cannot be written is a warning, and is fitted again next time."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        save_file({"delta": delta.contiguous()}, temporary, metadata=about)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        log.warning("cannot keep the perturbation %s: %s", path, error)
    finally:
        temporary.unlink(missing_ok=True)
