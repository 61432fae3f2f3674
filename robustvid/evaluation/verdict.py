"""The verdict on a batch: attack it, then believe nothing but what is measured again."""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from robustvid.budget import Budget
from robustvid.contracts import ClipSpec, VideoDataset, clip_seed
from robustvid.errors import AttackError, DataError, RunError
from robustvid.evaluation.cards import Attack
from robustvid.evaluation.evidence import as_float
from robustvid.evaluation.fast import AGREEMENT, BF16_AGREEMENT, Answer, ask, fastest, in_bf16, spread
from robustvid.evaluation.journal import CLEAN, Row
from robustvid.evaluation.probe import Probe
from robustvid.evaluation.threats import Sizes, Threat, cell_text, measure
from robustvid.losses import margin

Result = TypeVar("Result")
log = logging.getLogger("robustvid")


@dataclass(frozen=True)
class LoadedClip:
    """A labelled clip in memory: ``pixels`` is uint8 ``(C, T, H, W)``, ``digest`` of the pixels."""

    index: int
    sample: str
    label: int
    digest: str
    pixels: Tensor


class Found(NamedTuple):
    """What an attack made of a clip: the measurement, and the clip ``(C, T, H, W)`` in [0, 1]."""

    row: Row
    adversarial: Tensor


class Cost(NamedTuple):
    """One clip's share of what a batch cost."""

    forwards: float
    backwards: float
    seconds: float


def load_clip(data: VideoDataset, index: int, clip: ClipSpec) -> LoadedClip:
    """Return one clip of a dataset.

    Raises:
        DataError: the dataset returned anything but uint8 ``(T, H, W, 3)`` of the size asked for, or a wrong label.
    """
    sample = data.sample(index, clip)
    wanted = (clip.length, *clip.size, 3)
    if sample.frames.dtype != torch.uint8 or tuple(sample.frames.shape) != wanted:
        came = f"{sample.frames.dtype} {tuple(sample.frames.shape)}"
        raise DataError(f"{data.name} gave {came} for {sample.id}; uint8 {wanted} is wanted")
    if not 0 <= sample.label < len(data.classes):
        raise DataError(f"{data.name} gave label {sample.label} for {sample.id}, but has {len(data.classes)} classes")
    pixels = sample.frames.permute(3, 0, 1, 2).contiguous()
    digest = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()[:16]
    return LoadedClip(index, sample.id, int(sample.label), digest, pixels)


def as_batch(clips: Sequence[LoadedClip], device: torch.device) -> Tensor:
    """Return clips as the model takes them, float32 ``(B, C, T, H, W)`` in [0, 1]."""
    return as_float(torch.stack([clip.pixels for clip in clips]).to(device))


class Judge:
    """Attacks batches through a probe and measures what comes back.

    Args:
        probe: the counted model; every verdict is its own.
        device: where it is.
        seed: of the run.
        batch_size: clips attacked at once; halved for good when memory runs out.
        surrogate: the counted model that attacks are given; the measured one when None.

    Attributes:
        attacked: what attacks are given that climb no gradient.
        climbed: what those are given that do.
        prepare: makes an attack ready for clips whose budgets are cells of a threat; its cost is the batch's.
    """

    def __init__(
        self, probe: Probe, device: torch.device, seed: int, batch_size: int, surrogate: Probe | None = None
    ) -> None:
        self.probe, self.device, self.seed, self.batch_size = probe, device, seed, batch_size
        self.attacked = self._exact = self.climbed = surrogate or probe
        self.prepare: Callable[[Attack, Threat, Sequence[int]], Attack] = lambda attack, _threat, _cells: attack

    def clean(self, clips: Sequence[LoadedClip]) -> list[Row]:
        """Predict clips as they are."""
        return self._within_memory(self._clean, clips)

    def settle(self, clips: Sequence[LoadedClip], precision: str) -> dict[str, Any]:
        """Find how many clips fit into one call of the model, with a gradient, and what attacks are given from now on.

        Unless ``precision`` is ``"exact"`` that is a faster twin of their model, where these clips show that it is one.
        In bfloat16 only attacks that climb a gradient get it: its logits are too coarse for those that compare them.

        Returns:
            What attacks are given, and why; empty for ``"exact"``.
        """
        self.attacked = self.climbed = self._exact
        while (answer := self._fits(clips)) is None:
            self._shrink(self.probe.lanes)
        if precision == "exact":
            return {}
        pixels = self._full_call(clips)
        choice = fastest(self._exact.model, pixels, answer)
        self.attacked = self.climbed = self._probe_of(choice.model)
        if precision == "bf16":
            choice = in_bf16(choice, pixels)
            self.climbed = self._probe_of(choice.model)
        return choice.facts

    def _fits(self, clips: Sequence[LoadedClip]) -> Answer | None:
        try:
            return self.trial(clips)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        return None

    def _probe_of(self, model: nn.Module) -> Probe:
        known = (probe for probe in (self._exact, self.attacked) if probe.model is model)
        return next(known, None) or Probe(model, self.probe.lanes, surrogate=self._exact.surrogate)

    def trial(self, clips: Sequence[LoadedClip]) -> Answer:
        """Do the work that attacks are made of, once: a forward, and a backward where the model has a gradient."""
        pixels = self._full_call(clips)
        answer = ask(self.climbed, pixels)
        if self.climbed is not self.probe:
            self._predict(pixels)
        return answer

    def _full_call(self, clips: Sequence[LoadedClip]) -> Tensor:
        """Return as many clips as go through the model at once, some of them twice where there are fewer."""
        return self._pixels(list(itertools.islice(itertools.cycle(clips), self.probe.lanes)))

    def attack(
        self, attack: Attack, threat: Threat, clips: Sequence[LoadedClip], cells: Sequence[int], clean: Sequence[int]
    ) -> list[Found]:
        """Attack each clip inside its own budget of the threat and judge the result.

        Args:
            attack: what to run.
            threat: the budgets.
            clips: the clips to attack.
            cells: which budget of the threat each clip has.
            clean: what the model predicts for each clip as it is.

        Raises:
            AttackError: a result has the wrong shape, is not finite, leaves [0, 1] or the budget.
        """
        jobs = list(zip(clips, cells, clean, strict=True))
        return self._within_memory(lambda part: self._attack(attack, threat, part), jobs)

    def _clean(self, clips: Sequence[LoadedClip]) -> list[Row]:
        meter = _Meter(self._probes)
        logits = self._predict(self._pixels(clips))
        cost = meter.share(len(clips))
        nothing = Sizes(0.0, 0.0, 0.0, 0)
        return [
            _row(clip, logit, int(logit.argmax()), nothing, 0.0, cost)
            for clip, logit in zip(clips, logits, strict=True)
        ]

    def _attack(self, attack: Attack, threat: Threat, jobs: Sequence[tuple[LoadedClip, int, int]]) -> list[Found]:
        clips, cells, clean = zip(*jobs, strict=True)
        pixels = self._pixels(clips)
        labels = torch.tensor([clip.label for clip in clips], device=self.device)
        seeds = torch.tensor([clip_seed(self.seed, clip.sample, attack.key) for clip in clips])
        budget = threat.batch(cells, pixels.shape[2])
        meter = _Meter(self._probes)
        ready = self.prepare(attack, threat, cells)
        given = self.climbed if attack.access == "white-box" else self.attacked
        adversarial = ready(given, pixels.clone(), labels, budget, seeds)
        _check_range(attack.name, adversarial, pixels)
        logits = self._predict(adversarial)
        if len(again := self._doubtful(logits, labels, given)):
            # The twin may have taken a clip for broken that is not: there the model itself is attacked.
            part = budget.select(again)
            adversarial[again] = ready(self._exact, pixels[again], labels[again], part, seeds[again.cpu()])
            _check_range(attack.name, adversarial, pixels)
            logits[again.cpu()] = self._predict(adversarial[again])
        cost = meter.share(len(clips))
        delta = adversarial - pixels
        ratios = _check_size(attack.name, budget, delta, [threat.budgets[cell] for cell in cells], clips)
        verdicts = zip(clips, logits, clean, measure(delta), ratios, cells, adversarial.cpu(), strict=True)
        return [
            Found(_row(clip, logit, before, sizes, ratio, cost, attack, threat.budgets[cell]), result)
            for clip, logit, before, sizes, ratio, cell, result in verdicts
        ]

    def _doubtful(self, logits: Tensor, labels: Tensor, given: Probe) -> Tensor:
        """Return the places of clips that stand by less than the logits may be off that their attack was given."""
        if given is self._exact or self._exact.surrogate:
            return labels.new_zeros(0)
        gap, agreement = -margin(logits, labels.cpu()), AGREEMENT if given is self.attacked else BF16_AGREEMENT
        return ((gap >= 0) & (gap <= agreement * spread(logits))).nonzero().squeeze(1).to(labels.device)

    @property
    def _probes(self) -> set[Probe]:
        return {self.probe, self._exact, self.attacked, self.climbed}

    def _pixels(self, clips: Sequence[LoadedClip]) -> Tensor:
        return as_batch(clips, self.device)

    def _predict(self, clips: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return torch.as_tensor(self.probe(clips)).cpu()

    def _within_memory(self, work: Callable[[Sequence[Any]], list[Result]], items: Sequence[Any]) -> list[Result]:
        """Do the work, in halves where memory runs out; the batch stays halved from then on."""
        try:
            return work(items)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            self._shrink(len(items))
        half = max(1, len(items) // 2)
        parts = (part for part in (items[:half], items[half:]) if part)
        return [result for part in parts for result in self._within_memory(work, part)]

    def _shrink(self, size: int) -> None:
        if size > self.probe.lanes:
            self.batch_size = max(self.probe.lanes, min(self.batch_size, size // 2))
            log.warning("out of memory: going on with batches of %d", self.batch_size)
        elif self.probe.lanes > 1:
            for probe in self._probes:
                probe.lanes //= 2
            log.warning(
                "out of memory: going on with %d clips in a call of the model; borderline clips may differ from a run "
                "with more memory in the last bit of their logits",
                self.probe.lanes,
            )
        else:
            raise RunError("out of memory with a single clip: use a device with more memory, or smaller clips")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class _Meter:
    """Counts what probes are asked from now on."""

    def __init__(self, probes: Iterable[Probe]) -> None:
        self.probes = probes
        self.begin = self._read()

    def share(self, clips: int) -> Cost:
        return Cost(*((now - before) / clips for now, before in zip(self._read(), self.begin, strict=True)))

    def _read(self) -> tuple[float, float, float]:
        forwards = sum(probe.forwards for probe in self.probes)
        backwards = sum(probe.backwards for probe in self.probes)
        return forwards, backwards, time.perf_counter()


def _check_range(name: str, adversarial: Tensor, clips: Tensor) -> None:
    if adversarial.shape != clips.shape:
        raise AttackError(f"{name} returned {tuple(adversarial.shape)} for clips {tuple(clips.shape)}")
    if adversarial.dtype != clips.dtype:
        raise AttackError(f"{name} returned {adversarial.dtype}; {clips.dtype} is wanted, as it was given")
    low, high = (float(bound) for bound in torch.aminmax(adversarial))
    if not (low >= 0 and high <= 1):  # written so that NaN is refused too
        raise AttackError(f"{name} returned clips that span {low:g} to {high:g}, outside [0, 1]")


def _check_size(
    name: str, budget: Budget, delta: Tensor, written: Sequence[Budget], clips: Sequence[LoadedClip]
) -> list[float]:
    ratios: list[float] = budget.size(delta).tolist()
    for ratio, limit, clip in zip(ratios, written, clips, strict=True):
        if ratio > 1:
            raise AttackError(f"{name} left its budget: on {clip.sample} it used {ratio:.6g} times {limit.describe()}")
    return ratios


def _row(  # noqa: PLR0917  a row is wide; every caller names what it has
    clip: LoadedClip,
    logits: Tensor,
    clean: int,
    sizes: Sizes,
    ratio: float,
    cost: Cost,
    attack: Attack | None = None,
    budget: Budget | None = None,
) -> Row:
    predicted = int(logits.argmax())
    gap = -float(margin(logits[None], torch.tensor([clip.label])))
    return Row(
        sample=clip.sample,
        index=clip.index,
        digest=clip.digest,
        label=clip.label,
        attack=attack.name if attack else CLEAN,
        card_key=attack.key if attack else "",
        norm=budget.norm if budget else None,
        **cell_text(budget),  # type: ignore[arg-type]  # three differently typed columns in one table
        clean=clean,
        predicted=predicted,
        robust=predicted == clip.label,
        margin=gap,
        size=ratio,
        **sizes._asdict(),
        **cost._asdict(),
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
