"""A training: learn, measure after every epoch, keep the best; it goes on where it was stopped."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustvid.contracts import VideoDataset
from robustvid.data.batches import Videos, ahead, load_videos, training_batches
from robustvid.data.videos import IndexedVideos
from robustvid.errors import DecodeError, ModelError, RunError, TrainingStopped
from robustvid.evaluation.checks import check_models, check_partner, unnamed
from robustvid.evaluation.machine import note_environment, pick_device
from robustvid.evaluation.results import LEFT_OUT
from robustvid.evaluation.spec import default_folder, model_facts, open_together, spec_key, write_json
from robustvid.evaluation.sweep import ON_ERROR
from robustvid.models.checkpoint import check_savable, load_checkpoint, save_checkpoint
from robustvid.models.classifier import VideoClassifier
from robustvid.models.deployed import twin_of
from robustvid.ranks import Ranks, joined, local_device
from robustvid.registry import check_name
from robustvid.training.learner import Learner, Tally
from robustvid.training.method import Method, load_method
from robustvid.training.plan import TrainingPlan
from robustvid.training.state import HISTORY_FILE, STATE_FILE, load_state, random_state, save_state, set_random_state
from robustvid.training.validation import Split, alarms, hold_out, radius_shares, validate

log = logging.getLogger("robustvid")
_SECONDS_BETWEEN_REPORTS = 0.25  # reading the loss makes a GPU wait


class TrainingProgress(NamedTuple):
    """How far a training is.

    Attributes:
        step: updates made.
        steps: updates in all.
        loss: mean of the epoch so far; NaN before its first update.
        clips_per_second: since this process began.
        record: what an epoch that just ended has measured, else None.
    """

    step: int
    steps: int
    loss: float
    clips_per_second: float
    record: dict[str, Any] | None = None


# Garbage, up to 1e30 and no NaN, in torch 2.15 on a CPU with AVX512-BF16, in shapes such as (8, 64, 2, 4, 4).
_BF16_ON_CPU = (
    "bf16 is for GPUs: on CPUs, PyTorch's bf16 gradients of the weights of 3D convolutions are wrong in some shapes, "
    "without a word; train in fp32"
)


def train(
    model: VideoClassifier,
    data: VideoDataset,
    plan: TrainingPlan,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    device: str | torch.device | None = None,
    fresh: bool = False,
    on_error: str = "stop",
    save_every: float = 60.0,
    command: Sequence[str] | None = None,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> VideoClassifier:
    """Train a copy of ``model`` on ``data``.

    With ``out`` the folder holds, after every epoch, the best weights so far as a checkpoint that ``load_model`` takes,
    and what a training needs to go on: the same call again does, to the same weights as if it had never stopped.

    Args:
        model: stays as it is.
        data: training split; its class names must be the model's, in the same order. A model that does not name its
            classes gets those of the data.
        plan: what to do.
        out: folder of the training; nothing is written when None.
        name: what the card of the trained model says; that of ``model`` when None.
        device: where to train; a GPU when there is one.
        fresh: set an earlier training in ``out`` aside instead of going on with it.
        on_error: ``"stop"`` at the first video that cannot be read, or ``"skip"`` it: another one takes its place in
            the batch, and ``left_out.json`` in ``out`` and the model's card tell of it.
        save_every: seconds between two states on the disk, besides one after every epoch.
        command: the command line to note in the card.
        stop: asked after every update; when it says yes the state is saved and :class:`TrainingStopped` raised.
        progress: called after every update and after every epoch.

    Returns:
        The trained classifier in evaluation mode, on the device of ``model``: the best on held-out clips by robust
        accuracy, the last where none are held out. The last entry of its card's lineage tells of this training.

    Raises:
        ModelError: model and data disagree on the classes, the loss is no longer finite, the model could not be saved,
            or the plan asks for bf16 on a CPU.
        CardError: a setting of the plan means nothing.
        UnknownNameError: there is no such objective or attack.
        DataError: the data cannot be used.
        DecodeError: a video cannot be read; what was learnt before is kept.
        RunError: ``out`` holds something else or cannot be read.
        TrainingStopped: it was asked to.
    """
    check_name("on_error", on_error, ON_ERROR)
    check_models(model, data, None)
    if twin_of(model) is not None:
        raise ModelError(f"{model.card.name} is an exported graph, which cannot be trained: train its folder twin/")
    if model.card.clip.views * model.card.clip.crops > 1:
        raise ModelError(f"{model.card.name} averages over views or crops: train it with one, and measure it with many")
    method = load_method(plan)
    teacher = method.objective.teacher
    home = model.mean.device
    where = local_device(pick_device(device))
    if where.type == "cpu" and plan.precision == "bf16":
        raise ModelError(_BF16_ON_CPU)
    folder = None
    spec = _spec(model, data, plan, name, teacher)
    if teacher is not None:
        check_partner(model, "teacher", teacher, "both look at the same clips")
        teacher.to(where)
    with joined(where) as ranks:
        if out is not None:
            check_savable(model)
            folder = open_together(spec, out, ranks, fresh=fresh)
            if ranks.first:
                note_environment(folder / "environment.json", where, command)
        trainee = copy.deepcopy(model).to(where)
        classes = model.card.classes if unnamed(data.classes) else tuple(data.classes)
        trainee.card = replace(trainee.card, name=name or model.card.name, classes=classes, weights_digest="")
        devices = [where] if where.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(plan.seed)
            job = _Job(trainee, data, plan, method, ranks, folder, spec, on_error, save_every, command, stop, progress)
            return job.run().to(home).eval()


def training_folder(model: VideoClassifier, data: VideoDataset, plan: TrainingPlan, name: str) -> Path:
    """Return where a training is kept unless ``out`` names another folder: ``runs/<name>-<data>-<key>``."""
    return default_folder(_spec(model, data, plan, name, load_method(plan).objective.teacher))


def _spec(
    model: VideoClassifier, data: VideoDataset, plan: TrainingPlan, name: str | None, teacher: VideoClassifier | None
) -> dict[str, Any]:
    facts = model_facts(model)
    return {
        "kind": "training",
        "schema": 1,
        "model": facts | {"name": name or facts["name"], "start": facts["name"]},
        **({} if teacher is None else {"teacher": model_facts(teacher)}),
        "data": {
            "name": data.name,
            "split": data.split,
            "digest": getattr(data, "digest", None),
            "videos": len(data),
        },
        "plan": asdict(plan) | {"threats": list(plan.threats)},
    }


@dataclass
class _Job:
    """One training: what it works with, and where it stands."""

    model: VideoClassifier
    data: VideoDataset
    plan: TrainingPlan
    method: Method
    ranks: Ranks
    folder: Path | None
    spec: dict[str, Any]
    on_error: str
    save_every: float
    command: Sequence[str] | None
    stop: Callable[[], bool] | None
    progress: Callable[[TrainingProgress], None] | None
    epoch: int = 0
    batch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: VideoClassifier | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan, clip = self.plan, self.model.card.clip
        self.pass_over = self._pass_over if self.on_error == "skip" else None
        self.split: Split = hold_out(self.data, clip, plan.holdout, plan.seed, self.pass_over)
        batches = plan.epochs * math.ceil(len(self.split.training) / plan.batch_size)
        self.learner = Learner(self.model, plan, self.method, self.ranks, batches)
        self.device = self.learner.device
        self.begin = self.saved = time.monotonic()
        self.told = 0.0

    def run(self) -> VideoClassifier:
        """Train to the end and return the model to keep."""
        self._resume()
        if not self.learner.shares:
            self._share_radii()
        source: Videos | VideoDataset = self.data
        if self.plan.in_memory and isinstance(self.data, IndexedVideos) and self.epoch < self.plan.epochs:
            source = load_videos(self.data)
        while self.epoch < self.plan.epochs:
            try:
                for clips, labels in self._batches(source):
                    self.learner.learn(clips, labels)
                    self.batch += 1
                    self._after_update()
            except DecodeError:
                self._save()
                raise
            self._end_epoch()
        return self.best if self.best is not None else self.learner.measured

    def _batches(self, source: Videos | VideoDataset) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what is left of this epoch; clips that are channels-last train a sixth faster on CPUs."""
        plan = self.plan
        batches = training_batches(
            source,
            self.model.card.clip,
            plan.batch_size,
            plan.seed,
            self.epoch,
            roll=plan.roll,
            among=self.split.training,
            skip=self.batch,
            share=(self.ranks.rank, self.ranks.size),
            left_out=self.pass_over,
        )
        if self.device.type == "cuda":
            batches = ((clips.pin_memory(), labels.pin_memory()) for clips, labels in batches)
        if isinstance(source, IndexedVideos):
            batches = ahead(batches)
        for clips, labels in batches:
            yield (
                clips.to(self.device, memory_format=torch.channels_last_3d, non_blocking=True),
                labels.to(self.device, non_blocking=True),
            )

    def _pass_over(self, error: DecodeError) -> None:
        if error.file not in self.left_out:
            self.left_out[error.file] = error.reason
            log.warning("left out: %s", error)

    def _after_update(self) -> None:
        self._tell(None)
        if self.ranks.any(self.stop is not None and self.stop(), self.device):
            self._save()
            raise TrainingStopped(self.folder, self.learner.step, self.learner.steps)
        if time.monotonic() - self.saved > self.save_every:
            self._save()

    def _tell(self, record: dict[str, Any] | None) -> None:
        now = time.monotonic()
        early = record is None and now - self.told < _SECONDS_BETWEEN_REPORTS
        if self.progress is None or not self.ranks.first or early:
            return
        self.told = now
        learner = self.learner
        loss = record["train/loss"] if record else learner.tally.mean_loss()
        self.progress(TrainingProgress(learner.step, learner.steps, loss, self._rate(), record))

    def _rate(self) -> float:
        return self.learner.seen / max(time.monotonic() - self.begin, 1e-9)

    def _end_epoch(self) -> None:
        """Measure, keep what is best, and begin the next epoch."""
        learner, schedule = self.learner, self.plan.schedule
        learner.average_buffers()
        self.left_out = dict(ChainMap(*self.ranks.gather(self.left_out)))
        record: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "step": learner.step,
            "train/loss": self._finite(),
            "train/acc": int(learner.tally.right) / learner.tally.clips,
            "train/lr": learner.schedule.get_last_lr()[0],
            "train/radius": learner.radius() if schedule != "adaptive" else None,
            **validate(learner.measured, self.split.held, self.method.threats),
            "time/clips_per_s": self._rate(),
            "time": round(time.time(), 3),
        }
        self.history.append(record)
        record["alarms"] = alarms(self.history)
        self.epoch, self.batch, learner.tally = self.epoch + 1, 0, Tally.empty(self.device)
        self._share_radii()
        self._keep_best()
        self._save()
        self._tell(record)

    def _share_radii(self) -> None:
        if self.plan.schedule == "adaptive":
            self.learner.shares = radius_shares(self.learner.measured, self.split.held, self.method.threats)

    def _finite(self) -> float:
        loss = self.learner.tally.mean_loss()
        if not math.isfinite(loss):
            kept = f"; the weights of the best epoch are in {self.folder}" if self.folder and self.history else ""
            raise ModelError(f"the training loss is {loss}; a learning rate below {self.plan.lr:g} may help{kept}")
        return loss

    def _keep_best(self) -> None:
        ranks = [(r.get("val/robust_acc", 0.0), r.get("val/clean_acc", 0.0), r["epoch"]) for r in self.history]
        if max(ranks)[2] != self.epoch:
            return
        self.best = copy.deepcopy(self.learner.measured)
        told = {key: value for key, value in self.history[-1].items() if key == "epoch" or key.startswith("val/")}
        entry = _lineage(self.data, self.plan, self.command) | {"selected": told}
        if self.left_out:
            entry["left_out"] = len(self.left_out)
        if (teacher := self.method.objective.teacher) is not None:
            entry["teacher"] = teacher.card.weights_digest
        self.best.card = replace(self.best.card, lineage=(*self.best.card.lineage, entry))
        if self.folder and self.ranks.first:
            self.best.card = save_checkpoint(self.best, self.folder)

    def _save(self) -> None:
        if self.folder is None or not self.ranks.first or not math.isfinite(self.learner.tally.mean_loss()):
            return
        state = {
            "key": spec_key(self.spec),
            "epoch": self.epoch,
            "batch": self.batch,
            "history": self.history,
            "left_out": self.left_out,
            "random": random_state(),
        } | self.learner.state_dict()
        save_state(self.folder, state)
        write_json(self.folder / HISTORY_FILE, self.history)
        if self.left_out:
            left_out = [{"file": path, "reason": reason} for path, reason in sorted(self.left_out.items())]
            write_json(self.folder / LEFT_OUT, left_out)
        self.saved = time.monotonic()

    def _resume(self) -> None:
        state = load_state(self.folder, self.device, spec_key(self.spec)) if self.folder else None
        if state is None or self.folder is None:
            return
        try:
            self.epoch, self.batch, self.history = state["epoch"], state["batch"], state["history"]
            self.left_out = state["left_out"] | self.left_out
            self.learner.load_state_dict(state)
            set_random_state(state["random"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(
                f"{self.folder / STATE_FILE} cannot be gone on with ({type(error).__name__}: {error}); "
                "--fresh sets the training aside and begins again"
            ) from None
        if self.history:
            self.best = load_checkpoint(self.folder).to(self.device)


def _lineage(data: VideoDataset, plan: TrainingPlan, command: Sequence[str] | None) -> dict[str, Any]:
    return {
        **({"command": " ".join(command)} if command else {}),
        "step": "train",
        "data": data.name,
        "split": data.split,
        "data_digest": getattr(data, "digest", ""),
        "plan": asdict(plan) | {"threats": list(plan.threats)},
        "torch": torch.__version__,
    }
