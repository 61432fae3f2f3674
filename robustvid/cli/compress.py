"""``robustvid compress``: smaller and faster models, and what that does to their robustness."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from robustvid.cli.options import DATA, DEVICE, JSON, MLFLOW, ROOT, SEED, all_of


@dataclass(frozen=True)
class Options:
    """What every ``robustvid compress`` command was asked; the options' help says what each means."""

    model: str
    data: str
    root: str | None
    out: str | None
    name: str | None
    threat: str
    seed: int
    device: str | None
    mlflow_mode: str
    evaluate: bool
    battery: str
    clips: int
    threads: int
    as_json: bool


_THREAT = "linf frame 8/255"
_COMMON = (
    click.option("-m", "--model", default="conv3d", show_default=True, help="What to compress: zoo name or folder."),
    DATA,
    ROOT,
    click.option("--out", type=click.Path(), help="Folder of the result.  [default: runs/<name>]"),
    click.option("--name", help="What the result is called.  [default: <model>-<what was done>]"),
    click.option(
        "--threat",
        default=_THREAT,
        show_default=True,
        metavar="BUDGET",
        help="Budget of training and evaluation, such as 'l2 clip 2'.",
    ),
    SEED,
    DEVICE,
    MLFLOW,
    click.option("--evaluate", is_flag=True, help="Measure size, speed and robustness, before and after."),
    click.option("--battery", default="standard", show_default=True, help="With --evaluate: the attacks."),
    click.option(
        "-n", "--clips", type=click.IntRange(min=1), default=100, show_default=True, help="With --evaluate: how many."
    ),
    click.option(
        "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="With --evaluate: to time with."
    ),
    JSON,
)
_AMOUNT = click.FloatRange(0, 1, min_open=True, max_open=True)
_RUNTIME = click.option(
    "--runtime", type=click.Choice(["openvino", "onnx"]), default="openvino", show_default=True, help="What runs it."
)


def _training(objective: str, epochs: int, lr: float = 5e-3) -> tuple[Any, ...]:
    return (
        click.option(
            "-o", "--objective", default=objective, show_default=True, metavar="NAME[:k=v,...]", help="As of train-adv."
        ),
        click.option(
            "--epochs", type=click.IntRange(min=0), default=epochs, show_default=True, help="0 trains nothing."
        ),
        click.option(
            "--lr", type=click.FloatRange(0, min_open=True), default=lr, show_default=True, help="Highest rate."
        ),
    )


@click.group(
    epilog="""\b
Examples:
  robustvid compress prune --model conv3d-pgd --how channels --evaluate
  robustvid compress quantise --model conv3d-pgd --evaluate
"""
)
def compress() -> None:
    """Make a model smaller or faster, and measure what that does to its robustness.

    Every command writes a folder that --model takes everywhere. With --evaluate it is compared with the model that it
    came from: size, speed, clean and robust accuracy.
    """


@compress.command(
    epilog="""\b
Examples:
  robustvid compress prune --model conv3d-pgd --how channels --amount 0.5 --evaluate
  robustvid compress prune --model conv3d-pgd --how learnt --amount 0.9 --objective pgd:steps=5,step_size=0.3
  robustvid compress prune --model my/checkpoint --how weights --scope layer --amount 0.8 --epochs 0
"""
)
@click.option(
    "--how",
    type=click.Choice(["weights", "channels", "learnt"]),
    default="channels",
    show_default=True,
    help="Zero the smallest weights, remove channels, or zero what a robust loss can spare.",
)
@click.option("--amount", type=_AMOUNT, default=0.5, show_default=True, help="Share of the weights or channels.")
@click.option(
    "--scope", type=click.Choice(["global", "layer"]), default="global", show_default=True, help="Of --how weights."
)
@click.option(
    "--score-epochs", type=click.IntRange(min=1), default=4, show_default=True, help="Of --how learnt, for the scores."
)
@all_of(_training("n-fgsm", 8))
@all_of(_COMMON)
def prune(  # noqa: PLR0917  click hands all over by name
    how: str, amount: float, scope: str, score_epochs: int, objective: str, epochs: int, lr: float, **rest: Any
) -> None:
    """Remove what a model can spare, and train the rest further.

    Only removed channels make a model faster: zeros are multiplied like other numbers.
    """
    from robustvid.compression.prune import learn_masks, prune_channels, prune_weights
    from robustvid.models.checkpoint import save_checkpoint
    from robustvid.training.progress import training_progress

    asked = Options(**rest)
    parent, name, folder = _start(asked, f"{how}-{100 * amount:g}")
    if how == "channels":
        pruned = prune_channels(parent, amount)
    elif how == "weights":
        pruned = prune_weights(parent, amount, scope=scope)
    else:
        masks, plan = folder.with_name(f"{folder.name}-masks"), _plan(asked, objective, score_epochs, lr)
        with training_progress(score_epochs) as progress:
            pruned = learn_masks(
                parent, _load(asked, "train"), amount, plan, out=masks, device=asked.device, progress=progress
            )
    result = pruned
    if epochs:
        plan = _plan(asked, objective, epochs, lr, keep_zeros=how != "channels")
        result = _train(asked, pruned, plan, name, folder)
    else:
        pruned.card = replace(pruned.card, name=name)
        save_checkpoint(pruned, folder)
    _tell(asked, parent, result, folder)


@compress.command(
    epilog="""\b
Examples:
  robustvid compress distil --model conv3d-pgd --evaluate
  robustvid compress distil --model conv3d-pgd --objective ard:alpha=0.9 --amount 0.5 --epochs 20
  robustvid compress distil --model conv3d-pgd --student frame_rnn --objective kd
"""
)
@click.option("--student", help="Zoo name or folder of a model to teach.  [default: the teacher without channels]")
@click.option("--amount", type=_AMOUNT, default=0.3, show_default=True, help="Share of channels the student lacks.")
@all_of(_training("rslad", 10))
@all_of(_COMMON)
def distil(student: str | None, amount: float, objective: str, epochs: int, lr: float, **rest: Any) -> None:
    """Teach a smaller model what a larger one answers: with kd, or with ard or rslad from a robust teacher."""
    from robustvid.compression.prune import prune_channels
    from robustvid.models import load_model

    asked = Options(**rest)
    kind, _, settings = objective.partition(":")
    if kind not in {"kd", "ard", "rslad"} or "teacher=" in settings:
        raise click.UsageError(f"--objective {objective}: wanted kd, ard or rslad; the teacher is --model")
    if epochs == 0:
        raise click.UsageError("--epochs 0 teaches nothing")
    teacher, name, folder = _start(asked, kind)
    pupil = load_model(student) if student else prune_channels(teacher, amount)
    told = f"{kind}:teacher={asked.model}" + (f",{settings}" if settings else "")
    result = _train(asked, pupil, _plan(asked, told, epochs, lr), name, folder)
    _tell(asked, teacher, result, folder)


@compress.command(
    epilog="""\b
Examples:
  robustvid compress quantise --model conv3d-pgd --evaluate
  robustvid compress quantise --model conv3d-pgd --runtime onnx --calibration 500
  robustvid compress quantise --model conv3d-pgd --epochs 2 --objective pgd:steps=5,step_size=0.3
"""
)
@_RUNTIME
@click.option(
    "--calibration", type=click.IntRange(min=1), default=300, show_default=True, help="Training clips for the scales."
)
@all_of(_training("n-fgsm", 0, lr=5e-4))
@all_of(_COMMON)
def quantise(runtime: str, calibration: int, objective: str, epochs: int, lr: float, **rest: Any) -> None:
    """Export a model in int8 with static scales; with --epochs it is first trained with the rounding in sight."""
    import torch

    from robustvid.compression.export import export
    from robustvid.compression.quantise import with_rounding, without_rounding
    from robustvid.data.batches import evaluation_batches

    asked = Options(**rest)
    parent, name, folder = _start(asked, "int8")
    batches = evaluation_batches(_load(asked, "train"), parent.card.clip, calibration)
    clips = torch.cat([clips for clips, _ in batches])
    source = parent
    if epochs:
        rounded = _train(asked, with_rounding(parent, clips), _plan(asked, objective, epochs, lr), name, None)
        source = without_rounding(rounded, parent)
    result = export(source, folder, runtime=runtime, precision="int8", calibration=clips, name=name)
    _check(asked, result, "int8", folder)
    _tell(asked, parent, result, folder)


@compress.command(
    epilog="""\b
Examples:
  robustvid compress export --model conv3d-pgd --out deployed
  robustvid compress export --model conv3d-pgd --runtime onnx
  robustvid compress export --model conv3d-pgd --precision bf16 --evaluate
"""
)
@_RUNTIME
@click.option("--precision", type=click.Choice(["float32", "bf16"]), default="float32", show_default=True)
@all_of(_COMMON)
def export(runtime: str, precision: str, **rest: Any) -> None:
    """Write a model as a graph for OpenVINO or ONNX Runtime, and check that it answers as torch does."""
    from robustvid.compression.export import export as write

    asked = Options(**rest)
    parent, name, folder = _start(asked, f"{runtime}-{precision}")
    result = write(parent, folder, runtime=runtime, precision=precision, name=name)
    _check(asked, result, precision, folder)
    _tell(asked, parent, result, folder)


def _start(asked: Options, what: str) -> tuple[Any, str, Path]:
    """Return the model to compress, what the result is called, and its folder."""
    from robustvid.evaluation.machine import keep_freed_memory
    from robustvid.models import load_model

    keep_freed_memory()
    parent = load_model(asked.model)
    name = asked.name or f"{parent.card.name}-{what}"
    return parent, name, Path(asked.out) if asked.out else Path("runs") / name


def _load(asked: Options, split: str) -> Any:
    from robustvid.data import load_data

    return load_data(asked.data, root=asked.root, split=split)


def _plan(asked: Options, objective: str, epochs: int, lr: float, *, keep_zeros: bool = False) -> Any:
    from robustvid.training.plan import TrainingPlan

    small = asked.data == "motion10"  # a small world that wraps around
    return TrainingPlan(
        epochs,
        lr=lr,
        objective=objective,
        threats=(asked.threat,),
        seed=asked.seed,
        keep_zeros=keep_zeros,
        roll=small,
        in_memory=small,
    )


def _train(asked: Options, start: Any, plan: Any, name: str, folder: Path | None) -> Any:
    """Train in ``folder`` and log it; without a folder nothing of it is kept."""
    from robustvid.cli.train import train_or_stop, training_logger

    logger = training_logger(folder, asked.mlflow_mode) if folder else None
    return train_or_stop(start, _load(asked, "train"), plan, folder, logger, name=name, device=asked.device)


def _check(asked: Options, exported: Any, precision: str, folder: Path) -> None:
    """Compare an exported graph with torch on the test split, say how they agree, and set aside what does not."""
    from robustvid.compression.export import check_parity, parity
    from robustvid.errors import ModelError

    found = parity(exported, _load(asked, "test"), 400)
    click.echo(
        f"The graph and torch agree on {found.agree} of {found.n} test clips; logits differ by "
        f"{found.median:.1e} of their spread, {found.largest:.1e} at most",
        err=True,
    )
    try:
        check_parity(found, precision)
    except ModelError as error:
        aside = folder.with_name(f"{folder.name}.refused")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        raise ModelError(f"{error}; it is set aside as {aside}") from None


def _tell(asked: Options, parent: Any, result: Any, folder: Path) -> None:
    """Say where the result is and, if that was asked, what it is worth."""
    from rich.console import Console

    console = Console(stderr=asked.as_json)
    rows = _compared(asked, {"before": parent, "after": result}, folder, console) if asked.evaluate else []
    console.print(f"Model     {folder}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Next      robustvid attack --model {shlex.quote(str(folder))} --battery standard", soft_wrap=True)
    if asked.as_json:
        summary = {"folder": str(folder), "model": result.card.name, "rows": [row.facts() for row in rows]}
        click.echo(json.dumps(summary, allow_nan=False))


def _compared(asked: Options, models: dict[str, Any], folder: Path, console: Any) -> list[Any]:
    """Return what :func:`robustvid.compression.compare.compare` finds, shown, drawn and logged."""
    from robustvid.budget import Budget
    from robustvid.cli.progress import sweep_progress
    from robustvid.compression.compare import compare
    from robustvid.evaluation.cards import load_battery
    from robustvid.evaluation.results import Results
    from robustvid.reporting.mlflow import log_run
    from robustvid.reporting.pareto import write_pareto

    data = _load(asked, "test")
    with sweep_progress() as progress:
        rows = compare(
            models,
            data,
            Budget.parse(asked.threat),
            battery=load_battery(asked.battery),
            limit=min(asked.clips, len(data)),
            seed=asked.seed,
            device=asked.device,
            threads=asked.threads,
            progress=progress,
        )
    console.print(comparison_table(rows, asked.threat))
    _, picture = write_pareto([row.facts() for row in rows], f"{rows[0].n} test clips, {asked.threat}", folder)
    console.print(f"Figure    {picture}", soft_wrap=True, highlight=False, markup=False)
    links = [log_run(Results(run), mode=asked.mlflow_mode) for row in rows for run in row.runs]
    if links and links[-1]:
        console.print(f"MLflow    {links[-1]}", soft_wrap=True, highlight=False, markup=False)
    return rows


def comparison_table(rows: list[Any], threat: str) -> Any:
    """Return the comparison as a table for the terminal, a column for each model."""
    from rich.table import Table

    table = Table(title=f"{rows[0].n} test clips, {threat}", title_justify="left", box=None)
    table.add_column("")
    for row in rows:
        table.add_column(row.name, justify="right")
    facts = [row.facts() for row in rows]
    lines = {
        "clean accuracy": [_interval(fact["clean"]) for fact in facts],
        "robust accuracy": [_interval(fact["robust"]) for fact in facts],
        **{
            f"  {way}": [_interval(fact["ways"][way]) if way in fact["ways"] else "" for fact in facts]
            for way in dict.fromkeys(way for fact in facts for way in fact["ways"])
            if any(len(fact["ways"]) > 1 for fact in facts)
        },
        "parameters": [f"{row.size.parameters:,}" for row in rows],
        "zero weights": [f"{row.size.zeros:.0%}" for row in rows],
        "megabytes": [f"{row.size.megabytes:.2f}" for row in rows],
        "GFLOPs a clip": [f"{row.size.gflops:.3f}" for row in rows],
        "ms a clip, p50": [f"{row.latency.p50:.2f}" for row in rows],
        "ms a clip, p95": [f"{row.latency.p95:.2f}" for row in rows],
        "clips/s": [f"{row.latency.clips_per_second:.0f}" for row in rows],
    }
    for label, cells in lines.items():
        table.add_row(label, *cells)
    return table


def _interval(share: list[float]) -> str:
    return "{:.1f} % [{:.1f}, {:.1f}]".format(*share)
