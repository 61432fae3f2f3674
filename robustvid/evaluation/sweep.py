"""The sweep: every clip, every threat, every attack, until nothing is left to learn."""

from __future__ import annotations

import logging
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from robustvid.budget import Budget
from robustvid.contracts import ClipSpec, VideoDataset
from robustvid.errors import AttackError, DataError, RunError
from robustvid.evaluation.audit import audit_model
from robustvid.evaluation.cards import Attack, Battery, as_attack, load_attack
from robustvid.evaluation.checks import check_models
from robustvid.evaluation.evidence import read_clips
from robustvid.evaluation.fast import AS_GIVEN, PRECISIONS
from robustvid.evaluation.fitting import Fitter, training_facts
from robustvid.evaluation.journal import shared_journal
from robustvid.evaluation.machine import fastest_threads, lent, note_environment, pick_device
from robustvid.evaluation.plan import read_plan
from robustvid.evaluation.probe import Probe, lanes_on, number_on
from robustvid.evaluation.results import AUDIT, LEFT_OUT, ROWS, SURVIVAL, WORST, Results
from robustvid.evaluation.search import STRATEGIES
from robustvid.evaluation.spec import make_spec, open_together, write_json
from robustvid.evaluation.survival import survival
from robustvid.evaluation.threats import group_threats
from robustvid.evaluation.verdict import Judge, LoadedClip
from robustvid.evaluation.waves import Progress, Sweep
from robustvid.models.classifier import VideoClassifier
from robustvid.ranks import ALONE, Ranks
from robustvid.registry import check_name

log = logging.getLogger("robustvid")

BATCH_SIZE = {"cpu": 64, "cuda": 128}
ON_ERROR = ("stop", "skip")
KEPT_CLIPS = 6  # clips of every threat that are kept for the report


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
        sweep = Sweep(
            data,
            read_plan(spec),
            groups,
            judge,
            journal,
            audits,
            audit,
            folder,
            ranks,
            skip=on_error == "skip",
            keep=keep,
        )
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
