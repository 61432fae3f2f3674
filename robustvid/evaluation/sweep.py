"""The sweep: every clip, every threat, every attack, until nothing is left to learn."""

from __future__ import annotations

import itertools
import logging
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from robustvid.budget import Budget
from robustvid.contracts import ClipSpec, VideoDataset, clip_seed
from robustvid.data.videos import IndexedVideos
from robustvid.errors import AttackError, DataError, DecodeError, RunError
from robustvid.evaluation.audit import audit_model
from robustvid.evaluation.cards import Attack, Battery, as_attack, load_attack
from robustvid.evaluation.checks import check_models
from robustvid.evaluation.evidence import keep_clip, read_clips
from robustvid.evaluation.fast import AS_GIVEN, PRECISIONS
from robustvid.evaluation.fitting import Fitter, training_facts
from robustvid.evaluation.journal import Journal, Row, read_rows, shared_journal
from robustvid.evaluation.machine import fastest_threads, lent, note_environment, pick_device
from robustvid.evaluation.plan import Pair, Plan, by_clip, read_plan
from robustvid.evaluation.probe import Probe, lanes_on, number_on
from robustvid.evaluation.results import AUDIT, LEFT_OUT, ROWS, SURVIVAL, WORST, Results
from robustvid.evaluation.search import STRATEGIES, Hunt, Try
from robustvid.evaluation.spec import make_spec, open_together, write_json
from robustvid.evaluation.survival import survival
from robustvid.evaluation.threats import Threat, group_threats
from robustvid.evaluation.verdict import Judge, LoadedClip, load_clip
from robustvid.models.classifier import VideoClassifier
from robustvid.ranks import ALONE, Ranks
from robustvid.registry import check_name

Item = TypeVar("Item")
log = logging.getLogger("robustvid")

BATCH_SIZE = {"cpu": 64, "cuda": 128}
# Clips; the order of a search learns from waves that are over, so no option may change them. Larger ones fill more of
# the calls of a GPU; on a CPU they win nothing that could be measured.
FIRST_WAVE, WAVE = 16, {"cpu": 64, "cuda": 256}
ON_ERROR = ("stop", "skip")
KEPT_CLIPS = 6  # clips of every threat that are kept for the report


class Progress(NamedTuple):
    """How far a sweep is.

    Attributes:
        done: clips finished, counting parts of clips.
        total: clips in all.
        standing: of the first ``judged`` clips, how many are right and unbroken at ``budget``.
        judged: clips of the waves that are over.
        budget: the middle budget of the first threat, in words.
    """

    done: float
    total: int
    standing: int
    judged: int
    budget: str


def plan_attacks(
    attacks: str | Attack | Battery | Sequence[str | Attack | Callable[..., Tensor]],
) -> tuple[list[list[Attack]], str | None]:
    """Return groups of attacks, and the battery's name.

    The attacks of a battery form one group: each meets the clips that the earlier ones left standing. Attacks given
    one by one are groups of their own: each meets every clip, and gets a curve of its own.

    Raises:
        AttackError: none are given, two are the same, or one is called "worst".
    """
    if isinstance(attacks, Battery):
        groups, battery = [list(attacks.attacks)], f"{attacks.name}@{attacks.version}"
    else:
        given = [attacks] if isinstance(attacks, str | Attack) or callable(attacks) else attacks
        groups, battery = [[_as_attack(attack)] for attack in given], None
    loaded = [attack for group in groups for attack in group]
    if not loaded:
        raise AttackError("no attacks to run: name at least one attack or battery")
    for number, attack in enumerate(loaded):
        if attack.name == WORST:
            raise AttackError(
                f"an attack cannot be called {WORST!r}: that is the name of the worst case over all attacks"
            )
        for other in loaded[:number]:
            if attack.name == other.name or attack.key == other.key:
                raise AttackError(f"{other.name!r} and {attack.name!r} are the same attack; give it once")
    return groups, battery


def _as_attack(attack: str | Attack | Callable[..., Tensor]) -> Attack:
    if isinstance(attack, Attack):
        return attack
    return load_attack(attack) if isinstance(attack, str) else as_attack(attack)


def evaluate(
    model: VideoClassifier,
    data: VideoDataset,
    attacks: str | Attack | Battery | Sequence[str | Attack | Callable[..., Tensor]],
    budgets: Sequence[Budget],
    *,
    surrogate: VideoClassifier | None = None,
    training: VideoDataset | None = None,
    out: str | Path | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    strategy: str = "bisect",
    precision: str = "fast",
    audit: float = 0.02,
    on_error: str = "stop",
    keep: int = KEPT_CLIPS,
    fresh: bool = False,
    command: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    ranks: Ranks = ALONE,
) -> Results:
    """Measure the robust accuracy of a video classifier over a grid of budgets.

    Every attacked clip is predicted again in float32 and its perturbation measured again; every measurement is a line
    in the run folder's journal before the next batch begins. The same call again goes on where the last one stopped.

    Args:
        model: the classifier; it comes back as it was, on the device where it was.
        data: labelled videos; clips are cut as ``model.card.clip`` says.
        attacks: a :class:`Battery`, or attacks by name, card file or function.
        budgets: what perturbations may be; budgets that bound the same things form one threat.
        surrogate: attacks are run on this model instead, spend all their steps on it, and are judged by ``model``, to
            see how far its failures transfer. It must know the same classes and take clips of the same shape.
        training: labelled videos for attacks that are fitted before they are measured, such as ``universal``: another
            split than ``data``. What is fitted is kept in the run folder, and its cost is in the rows of the first
            batch that needed it.
        out: the run folder; ``runs/<model>-<data>-<key>`` when None.
        limit: how many clips, drawn by ``seed``; all when None.
        batch_size: clips attacked at once; changes speed and memory, never a result.
        device: where to run; a GPU when there is one.
        seed: of every random draw.
        strategy: ``"bisect"`` looks for each clip's critical radius, ``"every"`` tries each radius not yet lost.
        precision: ``"fast"`` lets attacks work on a faster twin of the model, where one is found that agrees with it;
            ``"exact"`` on the model itself; ``"bf16"`` lets those that climb a gradient work on it in bfloat16, faster
            still where the hardware has it, and no bit the same on another. Verdicts are the model's own in all three.
        audit: share of the measurements that ``"bisect"`` skips, drawn at random, to make after all: how often skipping
            was wrong is in the results. They are not part of the spec, and change no robust accuracy.
        on_error: ``"stop"`` at the first video that cannot be read, or ``"skip"`` it: every share is then of the clips
            that were measured, and ``left_out`` in the results lists the others with the reason.
        keep: of how many clips what attacks made of them is kept bit for bit, for the report; those that fell are put
            through storage and scaling, and looked at again, see :mod:`~robustvid.evaluation.survival`.
        fresh: set an earlier run of this spec aside instead of going on with it.
        command: the command line to note in the run, for the report.
        progress: called after every batch.
        ranks: the processes that measure together, each a share of the clips, see :func:`robustvid.ranks.joined`; all
            of them make this call. They find what one process alone finds.

    Returns:
        The results, read from the run folder.

    Raises:
        DecodeError: a video cannot be read; what was measured before is kept.
        DataError: not one video can be read.
        AttackError: an attack left the budget, the range or the shape, or misses its training data; names the attack.
        ModelError: model, data and surrogate disagree on the classes or the clips.
        RunError: the run folder cannot be used.
    """
    check_name("strategy", strategy, STRATEGIES)
    check_name("precision", precision, PRECISIONS)
    check_name("on_error", on_error, ON_ERROR)
    if not 0 <= audit <= 1:
        raise RunError(f"audit={audit}: give a share from 0 to 1")
    if batch_size is not None and batch_size < 1:
        raise RunError(f"batch_size={batch_size}: give at least 1")
    if keep < 0:
        raise RunError(f"keep={keep}: give 0 clips or more")
    groups, battery = plan_attacks(attacks)
    threats = group_threats(budgets)
    check_models(model, data, surrogate, training)
    place = pick_device(device)
    lanes = lanes_on(place)
    clips = choose_clips(len(data), limit, seed)
    settings = {"strategy": strategy, "precision": precision, "seed": seed, "lanes": lanes, "device": place.type}
    settings |= training_facts(training, data, groups)
    spec = make_spec(model, data, groups, battery, threats, clips, settings, surrogate)
    folder = open_together(spec, out, ranks, fresh=fresh)
    judge = Judge(
        Probe(model, lanes),
        place,
        seed,
        batch_size or number_on(place, BATCH_SIZE),
        None if surrogate is None else Probe(surrogate, lanes, surrogate=True),
    )
    with (
        shared_journal(folder / ROWS, ranks, clips) as journal,
        shared_journal(folder / AUDIT, ranks, clips) as audits,
        lent([model, surrogate], place),
        deferred_interrupt() as stop,
    ):
        if ranks.first:
            note_environment(folder / "environment.json", place, command)
        sweep = _Sweep(data, read_plan(spec), groups, judge, journal, audits, audit, folder, ranks)
        sweep.skip, sweep.keep = on_error == "skip", keep
        sample = [sweep.load(index) for index in sweep.readable(clips[: 2 * lanes])]
        if not sample:
            raise DataError(f"not one of the first {2 * lanes} videos can be read; see {folder / LEFT_OUT}")
        path = _settle(judge, sample, precision, ranks)
        judge.prepare = make_fitter(judge, training, model.card.clip, folder / "perturbations").ready
        if ranks.first:
            if path:
                write_json(folder / "path.json", path)
            write_json(folder / "model_flags.json", audit_model(judge, sample))
        with fastest_threads(lambda: judge.trial(sample), place):
            sweep.run(clips, stop, progress)
            if ranks.first:
                _note_survival(folder, judge)
    results = Results(folder)
    if ranks.first:
        write_json(folder / "summary.json", results.summary())
    return results


def _settle(judge: Judge, sample: Sequence[LoadedClip], precision: str, ranks: Ranks) -> dict[str, Any]:
    """Return what attacks are given, the same in all processes: their model itself where these would not agree."""
    path = judge.settle(sample, precision)
    if len({each.get("path") for each in ranks.gather(path)}) > 1:
        judge.settle(sample, "exact")
        path = {"path": AS_GIVEN, "why": "the processes do not agree on another"}
    return path


def _note_survival(folder: Path, judge: Judge) -> None:
    """Look again at the kept clips that fell; where they cannot be stored, what was measured stands without it."""
    try:
        write_json(folder / SURVIVAL, survival(judge.probe, read_clips(folder / "clips"), judge.device))
    except DataError as error:
        log.warning("what survives storage is not measured: %s", error)


def choose_clips(videos: int, limit: int | None, seed: int) -> list[int]:
    """Return ``limit`` places drawn without replacement; a larger limit extends a smaller one's draw.

    Raises:
        DataError: there are no videos, or ``limit`` is not positive.
    """
    if videos == 0:
        raise DataError("the dataset holds no videos")
    if limit is not None and limit < 1:
        raise DataError(f"{limit} clips: give at least 1")
    order = list(range(videos))
    random.Random(seed).shuffle(order)
    return order[:limit]


def make_fitter(judge: Judge, training: VideoDataset | None, clip: ClipSpec, folder: Path | None) -> Fitter:
    """Return what fits attacks on training clips, drawn by the run's seed, for the model that the judge attacks."""
    order = [] if training is None else choose_clips(len(training), None, judge.seed)
    return Fitter(judge.attacked, judge.device, training, order, clip, judge.seed, folder)


class _Share(NamedTuple):
    """What one process tells the others of a wave that is over; ``criticals`` as :class:`Hunt` counts them."""

    judged: int
    standing: int
    criticals: dict[Pair, list[int]]
    left_out: dict[int, dict[str, str]]


class _Sweep:
    """One run in progress, or one process's share of it."""

    def __init__(  # noqa: PLR0917  the parts of one evaluation, put together in one place
        self,
        data: VideoDataset,
        plan: Plan,
        groups: Sequence[Sequence[Attack]],
        judge: Judge,
        journal: Journal,
        audits: Journal,
        audit: float,
        folder: Path,
        ranks: Ranks,
    ) -> None:
        self.data, self.plan, self.groups, self.judge, self.ranks = data, plan, groups, judge, ranks
        self.journal, self.audits, self.audit, self.folder = journal, audits, audit, folder
        self.skip, self.keep = False, KEPT_CLIPS
        self.left_out: dict[int, dict[str, str]] = {}
        if ranks.first:
            (folder / LEFT_OUT).unlink(missing_ok=True)  # what could not be read then may be mended now
        self.rows = by_clip(read_rows(folder / ROWS))
        self.audited = {(row.index, plan.place(row)) for row in read_rows(folder / AUDIT)}
        self.loaded: dict[int, LoadedClip] = {}
        self.coming: dict[int, Future[LoadedClip]] = {}
        self.criticals = self._no_criticals()

    def run(self, clips: Sequence[int], stop: threading.Event, progress: Callable[[Progress], None] | None) -> None:
        """Measure what the journal does not hold yet, in waves of clips, so that memory stays flat.

        Each process takes its share of a wave, and waits for the others at its end to learn what they found.

        While a wave is attacked, a thread of its own reads the video files of the next. Datasets of others are read
        when they are needed: they need not bear a second thread.
        """
        shown = frozenset(clips[: self.keep])
        standing = before = 0
        waves = [clips[:FIRST_WAVE], *split(clips[FIRST_WAVE:], number_on(self.judge.device, WAVE))]
        reader = ThreadPoolExecutor(1)
        try:
            for wave, following in zip(waves, [*waves[1:], ()], strict=True):
                if isinstance(self.data, IndexedVideos):
                    new = (index for index in self.ranks.share(following) if index not in self.rows)
                    self.coming |= {index: reader.submit(self._read, index) for index in new}
                read = self.readable(self.ranks.share(wave))
                for done in itertools.chain(self._measure(read, shown), self._try_skipped(read)):
                    if progress:
                        everywhere = before + done * len(wave) / len(self.ranks.share(wave))
                        progress(self._progress(len(clips) - len(self.left_out), everywhere, before, standing))
                    if stop.is_set():
                        break
                judged, stand = self._meet(None if stop.is_set() else read)
                before, standing = before + judged, standing + stand
        finally:
            reader.shutdown(cancel_futures=True)

    def _meet(self, read: Sequence[int] | None) -> tuple[int, int]:
        """Finish a wave together with the other processes, and learn from it.

        Args:
            read: the clips that this process has measured; None where it was stopped.

        Returns:
            How many clips of the wave were measured, and how many stand in the middle budget of the first threat.

        Raises:
            KeyboardInterrupt: a process was stopped.
        """
        criticals = self._no_criticals()
        standing = sum(self._finish(index, criticals) for index in read or ())
        told = None if read is None else _Share(len(read), standing, criticals, self.left_out)
        shares = [share for share in self.ranks.gather(told) if share]
        if len(shares) < self.ranks.size:
            raise KeyboardInterrupt
        for share in shares:
            for pair, counts in share.criticals.items():
                self.criticals[pair] = [sum(both) for both in zip(self.criticals[pair], counts, strict=True)]
            if share.left_out.keys() - self.left_out:
                self.left_out |= share.left_out
                self._note_left_out()
        return sum(share.judged for share in shares), sum(share.standing for share in shares)

    def readable(self, indices: Sequence[int]) -> Sequence[int]:
        """Return those clips that can be read, where the others are to be skipped."""
        return [index for index in indices if index in self.rows or self._can_read(index)] if self.skip else indices

    def _can_read(self, index: int) -> bool:
        if index not in self.left_out:
            try:
                self.load(index)
            except DecodeError as error:
                self.left_out[index] = {"file": error.file, "reason": error.reason}
                self._note_left_out()
                log.warning("left out: %s", error)
        return index not in self.left_out

    def _note_left_out(self) -> None:
        if self.ranks.first:
            write_json(self.folder / LEFT_OUT, list(self.left_out.values()))

    def load(self, index: int) -> LoadedClip:
        """Return one clip, decoded once a wave; refuse one that is not what the journal measured.

        Raises:
            RunError: the pixels or the label have changed since.
        """
        if index not in self.loaded:
            coming = self.coming.pop(index, None)
            clip = self._read(index) if coming is None else coming.result()
            for row in self.rows.get(index, [])[:1]:
                if (row.digest, row.label) != (clip.digest, clip.label):
                    raise RunError(
                        f"{clip.sample} is not the clip that this run has measured; start again with --fresh"
                    )
            self.loaded[index] = clip
        return self.loaded[index]

    def _read(self, index: int) -> LoadedClip:
        return load_clip(self.data, index, self.plan.clip)

    def _measure(self, wave: Sequence[int], shown: frozenset[int]) -> Iterator[float]:
        """Measure a wave; yield after every batch how much of it is done, in clips."""
        new = [index for index in wave if index not in self.rows]
        for batch in split(new, self.judge.batch_size):
            self._note(self.judge.clean([self.load(index) for index in batch]))
            yield 0
        right = [index for index in wave if self._correct(index)]
        hunts = {index: self.plan.hunts(self.rows[index], self.criticals) for index in right}
        for pair in self.plan.pairs():
            for _ in self._hunt(pair, hunts, shown):
                yield sum(_done(hunts[index]) if index in hunts else 1.0 for index in wave)

    def _hunt(self, pair: Pair, hunts: dict[int, dict[Pair, Hunt]], shown: frozenset[int]) -> Iterator[None]:
        threat = self.plan.threats[pair.threat]
        while tries := {index: attempt for index, own in hunts.items() if (attempt := own[pair].next())}:
            ((attack, _),) = Counter(attempt.attack for attempt in tries.values()).most_common(1)
            batch = [index for index, attempt in tries.items() if attempt.attack == attack][: self.judge.batch_size]
            found = self.judge.attack(
                self.groups[pair.group][attack],
                threat,
                [self.load(index) for index in batch],
                [tries[index].cell for index in batch],
                [self._clean(index).predicted for index in batch],
            )
            self._note([result.row for result in found])
            for index, result in zip(batch, found, strict=True):
                if index in shown and (not result.row.robust or _unbroken(hunts[index], pair.threat)):
                    keep_clip(
                        self.folder / "clips", threat.name, result.row, self.loaded[index].pixels, result.adversarial
                    )
                self.plan.record(hunts[index][pair], pair, tries[index], result.row)
            yield

    def _try_skipped(self, wave: Sequence[int]) -> Iterator[float]:
        """Measure some of what the search skipped, from scratch; yield after every batch the size of the wave."""
        due: dict[tuple[Pair, int], list[tuple[int, int]]] = {}
        for index in filter(self._correct, wave):
            for pair, hunt in self.plan.hunts(self.rows[index]).items():
                for attempt in hunt.skipped:
                    if self._drawn(index, pair, attempt) and (index, (pair, attempt)) not in self.audited:
                        due.setdefault((pair, attempt.attack), []).append((index, attempt.cell))
        for (pair, attack), jobs in due.items():
            for part in split(jobs, self.judge.batch_size):
                found = self.judge.attack(
                    self.groups[pair.group][attack],
                    self.plan.threats[pair.threat],
                    [self.load(index) for index, _ in part],
                    [cell for _, cell in part],
                    [self._clean(index).predicted for index, _ in part],
                )
                self.audits.append([result.row for result in found])
                yield len(wave)

    def _drawn(self, index: int, pair: Pair, attempt: Try) -> bool:
        attack, budget = self.groups[pair.group][attempt.attack], self.plan.threats[pair.threat].budgets[attempt.cell]
        drawn = clip_seed(self.judge.seed, self._clean(index).sample, f"audit {attack.key} {budget.describe()}")
        return drawn < self.audit * 2**63

    def _note(self, rows: Sequence[Row]) -> None:
        self.journal.append(rows)
        for row in rows:
            self.rows.setdefault(row.index, []).append(row)

    def _clean(self, index: int) -> Row:
        return self.rows[index][0]

    def _correct(self, index: int) -> bool:
        return self._clean(index).robust

    def _no_criticals(self) -> dict[Pair, list[int]]:
        return {pair: [0] * (len(self.plan.threats[pair.threat].budgets) + 1) for pair in self.plan.pairs()}

    def _finish(self, index: int, criticals: dict[Pair, list[int]]) -> bool:
        """Learn from a clip, let go of it, and return whether it stands in the middle budget of the first threat."""
        self.loaded.pop(index, None)
        rows = self.rows.pop(index)
        if not rows[0].robust:
            return False
        hunts = self.plan.hunts(rows)
        for pair, hunt in hunts.items():
            criticals[pair][hunt.critical] += 1
        return all(hunt.broken_by[_middle(hunt.threat)] < 0 for pair, hunt in hunts.items() if pair.threat == 0)

    def _progress(self, clips: int, done: float, judged: int, standing: int) -> Progress:
        threat = self.plan.threats[0]
        return Progress(done, clips, standing, judged, threat.budgets[_middle(threat)].describe())


def split(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Return consecutive parts of at most ``size`` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _done(hunts: dict[Pair, Hunt]) -> float:
    return sum(hunt.done for hunt in hunts.values()) / len(hunts)


def _unbroken(hunts: dict[Pair, Hunt], threat: int) -> bool:
    return all((hunt.broken_by < 0).all() for pair, hunt in hunts.items() if pair.threat == threat)


def _middle(threat: Threat) -> int:
    return len(threat.budgets) // 2


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a wish to stop after the batch; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def wish(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        log.warning("stopping after this batch; press Ctrl-C again to stop at once")

    before = signal.signal(signal.SIGINT, wish)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
