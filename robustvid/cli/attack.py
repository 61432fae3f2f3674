"""``robustvid attack``: a robust-accuracy curve of a video classifier."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from robustvid.cli.options import (
    BOARDS,
    DATA,
    DEVICE,
    JSON,
    MLFLOW,
    ON_ERROR,
    ROOT,
    SEED,
    Decorator,
    all_of,
    told_of_skipping,
)
from robustvid.cli.progress import sweep_progress

if TYPE_CHECKING:
    from robustvid.leaderboard.boards import Board


_PATIENCE = timedelta(days=7)  # of processes that measure together: a share of a wave of clips may take hours


@dataclass(frozen=True)
class Options:
    """What ``robustvid attack`` was asked; the options' help says what each means."""

    model: str
    board: Board | None
    boards: str | None
    surrogate: str | None
    data: str
    root: str | None
    split: str
    attacks: tuple[str, ...]
    battery: str | None
    norm: str | None
    eps_frame: str | None
    eps_clip: str | None
    frames: str | None
    clips: str
    seed: int
    strategy: str
    precision: str
    audit: float
    device: str | None
    batch_size: int | None
    on_error: str
    keep: int
    out: str | None
    mlflow_mode: str
    fresh: bool
    dry_run: bool
    as_json: bool


_OPTIONS: tuple[Decorator, ...] = (
    click.option("-m", "--model", default="conv3d", show_default=True, help="Zoo name, folder, or module:function."),
    click.option(
        "--board",
        help="Follow the protocol of this leaderboard: its data, clips, budgets and battery.",
    ),
    BOARDS,
    click.option(
        "--surrogate",
        metavar="MODEL",
        help="Attack this model and measure --model, to see what transfers; named as --model.",
    ),
    DATA,
    ROOT,
    click.option("--split", default="test", show_default=True, help="Part of the dataset."),
    click.option(
        "-a",
        "--attack",
        "attacks",
        multiple=True,
        metavar="NAME[:k=v,...]",
        help="Card name, card file, or module:function; repeat it for a curve of each.",
    ),
    click.option("-b", "--battery", help="Battery name or file.  [default: quick]"),
    click.option("--norm", type=click.Choice(["linf", "l2"]), help="Norm of a frame's perturbation."),
    click.option("--eps-frame", metavar="EPS", help="Radii of a frame: 8/255, a list, 2..8:2/255 or 1..16*2/255."),
    click.option("--eps-clip", metavar="EPS", help="Radii of the whole clip, in l2: 0.5,1,2."),
    click.option("--frames", metavar="K", help="At most K frames change: 1,2,4,all."),
    click.option("-n", "--clips", default="100", show_default=True, metavar="N|all", help="How many, drawn by --seed."),
    SEED,
    click.option(
        "--strategy",
        default="bisect",
        show_default=True,
        help="bisect: search each clip's critical radius; every: try each radius.",
    ),
    click.option(
        "--precision",
        default="fast",
        show_default=True,
        help="fast: attack a faster twin where it agrees; exact: the model itself; bf16: take gradients in bfloat16.",
    ),
    click.option(
        "--audit",
        type=click.FloatRange(0, 1),
        default=0.02,
        show_default=True,
        metavar="SHARE",
        help="Of what bisect skips, measured after all to see how often that was wrong.",
    ),
    DEVICE,
    click.option("--batch-size", type=click.IntRange(min=1), help="Clips attacked at once; changes no result."),
    ON_ERROR,
    click.option(
        "--keep",
        type=click.IntRange(min=0),
        default=6,
        show_default=True,
        help="Attacked clips to keep bit for bit; those that fell are stored as video, scaled, and looked at again.",
    ),
    click.option("--out", type=click.Path(), help="Run folder.  [default: runs/<model>-<data>-<key>]"),
    MLFLOW,
    click.option("--fresh", is_flag=True, help="Set an earlier run of this spec aside and start again."),
    click.option("--dry-run", is_flag=True, help="Say what would be measured, and about how long it takes."),
    JSON,
)
_OF_BOARDS = (
    *("surrogate", "split", "attacks", "battery", "norm", "eps_frame", "eps_clip", "frames", "clips"),
    *("seed", "strategy", "precision"),
)


@click.command(
    epilog="""\b
Examples:
  robustvid attack
  robustvid attack --model frame_rnn --battery quick --eps-frame 1..8*2/255 --clips all
  robustvid attack -a pgd:steps=50,restarts=2 --norm l2 --eps-frame 0.1,0.2 --eps-clip 0.25,0.5
  robustvid attack --eps-frame 2..8:2/255 --frames 1,2,4,all
  robustvid attack --model frame_rnn --surrogate conv3d -a mi-fgsm -a temporal-shift --eps-frame 8/255,16/255
  robustvid attack --board motion10-linf --model my/checkpoint
  robustvid attack --model my_package.mine:build --data folder --root my/videos --json
  torchrun --nproc-per-node gpu -m robustvid attack --battery standard --eps-frame 1..8*2/255 --clips all
"""
)
@all_of(_OPTIONS)
def attack(**options: Any) -> None:
    """Measure robust accuracy over a grid of per-frame and per-clip budgets.

    Without options: the zoo's conv3d on the embedded videos motion10, the battery "quick", one curve for linf per
    frame and one for l2 per clip. The same command again goes on where the last one stopped.
    """
    if options["board"]:
        ctx = click.get_current_context()
        given = [name for name in _OF_BOARDS if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
        if given:
            raise click.UsageError(f"--board says what {', '.join(given)} are; give one or the other")
        options |= _protocol(options["board"], options["boards"])
        if ctx.get_parameter_source("data") is ParameterSource.DEFAULT:
            options["data"] = options["board"].data
    elif options["boards"]:
        raise click.UsageError("--boards is the folder of a --board: which one?")
    run_attack(Options(**options))


@click.command(
    epilog="""\b
Example:
  robustvid demo
"""
)
def demo() -> None:
    """Make the embedded videos, attack a 3D CNN on them, and show what came out.

    The same as `robustvid attack` without options, plus a picture and what to try next.
    """
    from rich.console import Console

    console = Console(stderr=True)
    console.print(
        "[bold]robustvid demo[/]: how much may each frame, and the whole clip, change before conv3d fails?",
        soft_wrap=True,
    )
    results = run_attack(Options(**attack.make_context("demo", []).params))
    if results is None:
        return
    from robustvid.reporting.figures import write_readme_picture

    picture = results.folder / "figures" / "overview.png"
    write_readme_picture(results, picture)
    out = Console()
    out.print(f"Picture   {picture}", soft_wrap=True, highlight=False, markup=False)
    for line in (
        "Next      robustvid attack --model frame_rnn   and the link above compares the two",
        "          robustvid attack --eps-frame 2..8:2/255 --frames 1,2,4,all",
        "          robustvid attack --help",
    ):
        out.print(line, soft_wrap=True, highlight=False)


def run_attack(asked: Options) -> Any:
    """Run ``robustvid attack``; return the results, or None after a dry run and in all processes but the first."""
    if asked.attacks and asked.battery:
        raise click.UsageError("give --attack or --battery, not both: a battery is a list of attacks")
    from robustvid.ranks import joined

    command, limit = ["robustvid", *sys.argv[1:]], _count(asked.clips)
    with _resumable(command), joined("cpu", _PATIENCE) as ranks:
        return _run(asked, command, limit, ranks)


def _run(asked: Options, command: list[str], limit: int | None, ranks: Any) -> Any:
    import robustvid as rv
    from robustvid.evaluation.machine import keep_freed_memory, pick_device
    from robustvid.ranks import local_device

    keep_freed_memory()
    attacks, budgets = _question(asked)
    model = rv.load_model(asked.model)
    load = asked.board.load_data if asked.board else partial(rv.load_data, split=asked.split)
    data = load(asked.data, root=asked.root)
    settings: dict[str, Any] = {
        "surrogate": rv.load_model(asked.surrogate) if asked.surrogate else None,
        "training": _training(attacks, asked),
        "limit": limit,
        "device": local_device(pick_device(asked.device)),
        "seed": asked.seed,
        "strategy": asked.strategy,
        "precision": asked.precision,
    }
    if asked.dry_run:
        from robustvid.cli.estimate import estimate

        if ranks.first:
            estimate(model, data, attacks, budgets, as_json=asked.as_json, **settings)
        return None
    with sweep_progress() if ranks.first else nullcontext() as progress, told_of_skipping():
        results = rv.evaluate(
            model,
            data,
            attacks,
            budgets,
            out=asked.out,
            batch_size=asked.batch_size,
            audit=asked.audit,
            on_error=asked.on_error,
            keep=asked.keep,
            fresh=asked.fresh,
            command=command,
            progress=progress,
            ranks=ranks,
            **settings,
        )
    if not ranks.first:
        return None
    _tell(results, asked)
    return results


def _protocol(name: str, boards: str | None) -> dict[str, Any]:
    """Return the options that a board fixes, and the board."""
    from robustvid.leaderboard.boards import load_board

    board = load_board(name, Path(boards) if boards else None)
    fixed = {name: getattr(board, name) for name in ("split", "seed", "strategy", "precision")}
    return fixed | {"board": board, "clips": str(board.clips)}


def _question(asked: Options) -> tuple[Any, list[Any]]:
    """Return the attacks and the budgets."""
    import robustvid as rv
    from robustvid.cli.grid import make_budgets

    if asked.board:
        return asked.board.load_attacks(), list(asked.board.budgets)
    budgets = make_budgets(asked.norm, asked.eps_frame, asked.eps_clip, asked.frames)
    return list(asked.attacks) if asked.attacks else rv.load_battery(asked.battery or "quick"), budgets


def _training(attacks: Any, asked: Options) -> Any:
    """Return the split "train" of the same data where an attack is fitted on it, else None."""
    import robustvid as rv
    from robustvid.evaluation.fitting import fitted
    from robustvid.evaluation.sweep import plan_attacks

    return rv.load_data(asked.data, root=asked.root, split="train") if fitted(plan_attacks(attacks)[0]) else None


def _count(clips: str) -> int | None:
    if clips == "all":
        return None
    if not clips.isdecimal() or int(clips) == 0:
        raise click.BadParameter(f"{clips!r} is neither a number of clips nor 'all'", param_hint="--clips")
    return int(clips)


def _tell(results: Any, asked: Options) -> None:
    from rich.console import Console

    from robustvid.reporting.figures import write_figures
    from robustvid.reporting.mlflow import log_run
    from robustvid.reporting.page import write_report
    from robustvid.reporting.terminal import print_results

    console = Console(stderr=asked.as_json)
    print_results(results, console)
    if asked.as_json:  # first, so that nothing that follows can keep it back
        click.echo(json.dumps(results.summary(), allow_nan=False))
    write_figures(results, results.folder / "figures")
    console.print(f"Report    {write_report(results)}", soft_wrap=True, highlight=False, markup=False)
    link = log_run(results, mode=asked.mlflow_mode)
    if link:
        console.print(f"MLflow    {link}", soft_wrap=True, highlight=False, markup=False)
    if asked.board:
        where = f"{asked.board.name} --boards {asked.boards}" if asked.boards else asked.board.name
        line = f"Next      robustvid leaderboard submit {results.folder} --board {where} --id NAME"
        console.print(line, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _resumable(command: list[str]) -> Iterator[None]:
    from robustvid.ranks import first_process

    try:
        yield
    except KeyboardInterrupt:
        if first_process():
            click.echo(f"\nStopped; everything measured is kept. To go on:\n  {shlex.join(command)}", err=True)
        sys.exit(130)
