"""``robustvid train-adv``: a video classifier that fails less."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any

import click

from robustvid.cli.options import DATA, DEVICE, JSON, MLFLOW, ON_ERROR, ROOT, SEED, all_of, told_of_skipping

_FACTORS = (Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(3, 2))  # of the radius: before and after


@dataclass(frozen=True)
class Options:
    """What ``robustvid train-adv`` was asked; the options' help says what each means."""

    model: str
    data: str
    root: str | None
    objective: str
    norm: str | None
    eps_frame: str | None
    eps_clip: str | None
    frames: str | None
    attack: str | None
    threats: tuple[str, ...]
    mix: str
    schedule: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    awp: float
    ema: float
    accumulate: int
    precision: str
    sync_batchnorm: bool
    keep_zeros: bool
    holdout: int
    seed: int
    clips: int
    device: str | None
    out: str | None
    name: str | None
    mlflow_mode: str
    register: str | None
    fresh: bool
    on_error: str
    as_json: bool


_OPTIONS = (
    click.option("-m", "--model", default="conv3d", show_default=True, help="Where to start: zoo name or folder."),
    DATA,
    ROOT,
    click.option(
        "-o",
        "--objective",
        default="n-fgsm",
        show_default=True,
        metavar="NAME[:k=v,...]",
        help="natural, fgsm, n-fgsm, pgd, free, trades, mart, or kd, ard, rslad from a teacher, with settings.",
    ),
    click.option("--norm", type=click.Choice(["linf", "l2"]), help="Norm of a frame's perturbation."),
    click.option("--eps-frame", metavar="EPS", help="Radius of a frame.  [default: 8/255]"),
    click.option("--eps-clip", metavar="EPS", help="Radius of the whole clip, in l2."),
    click.option("--frames", metavar="K", help="At most K frames change."),
    click.option("-a", "--attack", metavar="NAME[:k=v,...]", help="Card of the attack that finds the clips."),
    click.option(
        "--threat",
        "threats",
        multiple=True,
        metavar="[ATTACK @] BUDGET",
        help="Instead of the five above, and repeatable: 'linf frame 8/255', 'flicker @ linf frame 16/255'.",
    ),
    click.option(
        "--mix",
        type=click.Choice(["average", "max", "random"]),
        default="average",
        show_default=True,
        help="Several threats: average their losses, take each clip's worst, or one per batch.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(["constant", "curriculum", "reverse", "adaptive"]),
        default="constant",
        show_default=True,
        help="How the radius changes while training goes on.",
    ),
    click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="Passes over the clips."),
    click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Clips per update."),
    click.option(
        "--lr", type=click.FloatRange(0, min_open=True), default=5e-3, show_default=True, help="Highest rate."
    ),
    click.option("--weight-decay", type=click.FloatRange(0), default=1e-2, show_default=True, help="Of AdamW."),
    click.option("--awp", type=click.FloatRange(0), default=0.0, help="Weight perturbation, such as 0.005."),
    click.option("--ema", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Averaged weights: 0.99."),
    click.option("--accumulate", type=click.IntRange(min=1), default=1, help="Parts of a batch, to save memory."),
    click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True),
    click.option("--sync-batchnorm", is_flag=True, help="Under torchrun: BatchNorm over all GPUs."),
    click.option("--keep-zeros", is_flag=True, help="Weights that are zero stay zero: a pruned model's."),
    click.option(
        "--holdout",
        type=click.IntRange(min=0),
        default=128,
        show_default=True,
        help="Training clips kept apart to choose the best epoch; 0 keeps the last.",
    ),
    SEED,
    click.option(
        "-n",
        "--clips",
        type=click.IntRange(min=0),
        default=100,
        show_default=True,
        help="Test clips of the curve before and after; 0 for none.",
    ),
    DEVICE,
    click.option("--out", type=click.Path(), help="Folder of the training.  [default: runs/<name>-<data>-<key>]"),
    click.option("--name", help="What the trained model is called.  [default: <model>-<objective>]"),
    MLFLOW,
    click.option("--register", metavar="NAME", help="Add the model to MLflow's registry under this name."),
    click.option("--fresh", is_flag=True, help="Set an earlier training of this plan aside and start again."),
    ON_ERROR,
    JSON,
)


@click.command(
    name="train-adv",
    epilog="""\b
Examples:
  robustvid train-adv
  robustvid train-adv --objective pgd:steps=10 --eps-frame 4/255 --epochs 20
  robustvid train-adv --objective trades --norm l2 --eps-clip 2 --ema 0.99
  robustvid train-adv --objective pgd --threat 'linf frame 8/255' --threat 'l2 clip 2' --mix max
  robustvid train-adv --model frame_pool --objective rslad:teacher=conv3d-pgd
  robustvid train-adv --objective pgd --attack sparse-frames --eps-frame 16/255 --frames 2
  torchrun --nproc-per-node 4 --max-restarts 3 -m robustvid train-adv --model my/checkpoint --data folder --root videos
""",
)
@all_of(_OPTIONS)
def train_adv(**options: Any) -> None:
    """Train a video classifier against perturbations inside a budget.

    Without options: the zoo's conv3d on the embedded videos motion10, against 8/255 in every frame, with single steps
    from large noise (N-FGSM), the cheapest training that holds at this radius. The same command again goes on where the
    last one stopped. The folder holds the best weights; --model FOLDER takes them everywhere.
    """
    run_training(Options(**options))


def run_training(asked: Options) -> None:
    """Run ``robustvid train-adv``."""
    import robustvid as rv
    from robustvid.evaluation.machine import keep_freed_memory
    from robustvid.ranks import first_process
    from robustvid.training.loop import training_folder

    keep_freed_memory()
    plan = make_plan(asked)
    model = rv.load_model(asked.model)
    data = rv.load_data(asked.data, root=asked.root, split="train")
    name = asked.name or f"{model.card.name}-{asked.objective.partition(':')[0]}"
    folder = Path(asked.out) if asked.out else training_folder(model, data, plan, name)
    logger = training_logger(folder, "required" if asked.register else asked.mlflow_mode) if first_process() else None
    settings = {"name": name, "device": asked.device, "fresh": asked.fresh, "on_error": asked.on_error}
    with told_of_skipping():
        trained = train_or_stop(model, data, plan, folder, logger, **settings)
    if first_process():
        _tell(asked, plan, (model, trained), folder, logger)


def train_or_stop(
    model: Any, data: Any, plan: Any, folder: Path | None, logger: Callable[[], str | None] | None, **settings: Any
) -> Any:
    """Train with a progress bar and return the model; where a signal stops it, say how to go on and exit.

    Args:
        model: where to start.
        data: training split.
        plan: what to do.
        folder: of the training; None where nothing of it is kept.
        logger: called after every epoch; None for none.
        settings: other arguments of :func:`robustvid.train`.
    """
    import robustvid as rv
    from robustvid.errors import TrainingStopped
    from robustvid.ranks import first_process
    from robustvid.training.progress import training_progress

    first, command = first_process(), ["robustvid", *sys.argv[1:]]
    with _stoppable() as stop, training_progress(plan.epochs) if first else nullcontext() as show:

        def progress(told: Any) -> None:
            if show:
                show(told)
            if told.record and logger:
                logger()

        try:
            return rv.train(
                model,
                data,
                plan,
                out=folder,
                command=command,
                stop=stop,
                progress=progress if first else None,
                **settings,
            )
        except TrainingStopped as stopped:
            if first:
                click.echo(f"{stopped}. To go on:\n  {shlex.join(command)}", err=True)
            sys.exit(stop.exit_code)


def make_plan(asked: Options) -> Any:
    """Return the plan that the options ask for.

    Raises:
        click.UsageError: threats are given in both ways.
        RobustvidError: an option means nothing.
    """
    from robustvid.training.plan import TrainingPlan

    single = {"norm", "eps_frame", "eps_clip", "frames", "attack"}
    given = sorted(name for name in single if getattr(asked, name) is not None)
    if asked.threats and given:
        raise click.UsageError(f"give --threat, or --{given[0].replace('_', '-')} and the like, not both")
    threats = asked.threats or (_threat(asked),)
    same = ("objective", "mix", "schedule", "epochs", "batch_size", "lr", "weight_decay", "awp", "ema", "accumulate",
            "precision", "sync_batchnorm", "keep_zeros", "holdout", "seed")  # fmt: skip
    settings: dict[str, Any] = {name: getattr(asked, name) for name in same}
    if asked.data == "motion10":  # a small world that wraps around
        settings |= {"roll": True, "in_memory": True}
    return TrainingPlan(threats=threats, **settings)


def _threat(asked: Options) -> str:
    from robustvid.cli.grid import make_budgets

    eps_frame = asked.eps_frame or (None if asked.eps_clip else "8/255")
    budgets = make_budgets(asked.norm, eps_frame, asked.eps_clip, asked.frames)
    if len(budgets) > 1:
        raise click.UsageError("--eps-frame, --eps-clip and --frames take one value here; repeat --threat for a mix")
    told: str = budgets[0].describe()
    return f"{asked.attack} @ {told}" if asked.attack else told


def _tell(asked: Options, plan: Any, models: tuple[Any, Any], folder: Path, logger: Any) -> None:
    """Say where the trained model, the second one, is, and what it is worth."""
    from rich.console import Console

    console = Console(stderr=asked.as_json)
    curves = _before_and_after(asked, plan, models, folder) if asked.clips else []
    _print_curves(curves, console)
    console.print(f"Model     {folder}", soft_wrap=True, highlight=False, markup=False)
    link = logger() if logger else None
    if link:
        console.print(f"MLflow    {link}", soft_wrap=True, highlight=False, markup=False)
    if asked.register:
        from robustvid.reporting.mlflow_training import register

        console.print(f"Registry  {register(folder, asked.register)}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Next      robustvid attack --model {shlex.quote(str(folder))} --battery standard", soft_wrap=True)
    if asked.as_json:
        from robustvid.training.state import read_history

        history = read_history(folder)
        summary = {"folder": str(folder), "model": models[1].card.name, "history": history, "curves": curves}
        click.echo(json.dumps(summary, allow_nan=False))


def _before_and_after(asked: Options, plan: Any, models: tuple[Any, Any], folder: Path) -> list[dict[str, Any]]:
    """Return robust accuracy on the test split for both models, at multiples of the radii that were trained against.

    Threats that leave the attack open are measured with the battery ``quick``; where all name theirs, those are used.
    """
    import robustvid as rv
    from robustvid.cli.progress import sweep_progress
    from robustvid.training.plan import parse_threat

    data = rv.load_data(asked.data, root=asked.root, split="test")
    threats = [parse_threat(text) for text in plan.threats]
    plain = [threat for threat in threats if threat.attack is None]
    attacks: Any = rv.load_battery("quick") if plain else sorted({threat.attack or "" for threat in threats})
    budgets = {
        scaled.describe(): scaled
        for budget in (threat.budget for threat in plain or threats)
        for scaled in (budget.scaled(factor) for factor in _FACTORS if _exists(budget, factor))
    }
    curves = []
    for model, name in zip(models, ("before", "after"), strict=True):
        with sweep_progress() as progress:
            results = rv.evaluate(
                model,
                data,
                attacks,
                list(budgets.values()),
                out=folder / f"{name}-{asked.clips}",
                limit=min(asked.clips, len(data)),
                device=asked.device,
                seed=asked.seed,
                on_error=asked.on_error,
                progress=progress,
            )
        summary = results.summary()
        curves.append({"model": name, "clean": summary["clean"], "curves": summary["curves"]})
    return curves


def _exists(budget: Any, factor: Fraction) -> bool:
    """Return whether there is such a multiple: in linf no pixel moves by more than 1."""
    return bool(budget.norm != "linf" or budget.frame * factor <= 1)


def _print_curves(curves: list[dict[str, Any]], console: Any) -> None:
    from rich.table import Table

    if not curves:
        return
    table = Table(title="Robust accuracy on test clips", title_justify="left", box=None)
    for column in ("", "before", "after"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("clean", *(_share(curve["clean"]) for curve in curves))
    pairs = [[c for c in curve["curves"] if c["attack"] == "worst"] for curve in curves]
    for before, after in zip(*pairs, strict=True):
        for one, two in zip(before["points"][1:], after["points"][1:], strict=True):  # the first is the clean clip
            radius = ", ".join(
                f"{word} {one[key]}"
                for key, word in (("eps_frame", "frame"), ("eps_clip", "clip"), ("frames", "frames"))
                if one[key]
            )
            table.add_row(f"{before['threat']}: {radius}", _share(one), _share(two))
    console.print(table)


def _share(point: dict[str, Any]) -> str:
    return f"{point['acc']:.0%} [{point['lo']:.0%}, {point['hi']:.0%}]"


def training_logger(folder: Path, mode: str) -> Callable[[], str | None]:
    """Return what sends a training to MLflow as far as it got, and returns the run's link."""
    from robustvid.reporting.mlflow_training import TrainingLog

    return TrainingLog(folder, mode)


class _Stop:
    """Whether a signal asked for the end, and how the command then exits: 0 for SIGTERM, 130 for Ctrl-C."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return 130 if self.signal == signal.SIGINT else 0

    def hear(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:  # asked twice: at once
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    stop = _Stop()
    before = {number: signal.signal(number, stop.hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
