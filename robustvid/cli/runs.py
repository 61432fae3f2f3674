"""Commands that read a run folder: ``report`` and ``sync``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from robustvid.errors import RunError


@click.command(
    epilog="""\b
Examples:
  robustvid report runs/conv3d-motion10-0123456789
  robustvid report conv3d-motion10-0123456789 --json
"""
)
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")
def report(run: str, as_json: bool) -> None:
    """Show a run and write its report.html and figures again.

    RUN is a run folder, or its name inside ./runs; a run that was stopped is shown as far as it got.
    """
    from rich.console import Console

    from robustvid.evaluation.results import ROWS, Results
    from robustvid.reporting.figures import write_figures
    from robustvid.reporting.page import write_report
    from robustvid.reporting.terminal import print_results

    results = Results(find_run(run))
    console = Console(stderr=as_json)
    print_results(results, console)
    if (results.folder / ROWS).is_file():
        write_figures(results, results.folder / "figures")
        console.print(f"Report    {write_report(results)}", soft_wrap=True, highlight=False, markup=False)
    else:
        console.print("An entry of a leaderboard: nothing is written into it.")
    if as_json:
        click.echo(json.dumps(results.summary(), allow_nan=False))


@click.command(
    epilog="""\b
Examples:
  robustvid sync runs/conv3d-motion10-0123456789
  MLFLOW_TRACKING_URI=http://localhost:5000 robustvid sync conv3d-motion10-0123456789
"""
)
@click.argument("run")
def sync(run: str) -> None:
    """Send a run to MLflow, now or again; what is there already is not duplicated.

    RUN is a run folder, or its name inside ./runs.
    """
    from robustvid.evaluation.results import Results
    from robustvid.evaluation.spec import read_spec
    from robustvid.reporting.figures import write_figures
    from robustvid.reporting.mlflow import log_run
    from robustvid.reporting.mlflow_training import log_training
    from robustvid.reporting.page import write_report

    folder = find_run(run)
    if read_spec(folder).get("kind") == "training":
        click.echo(log_training(folder, mode="required"))
        return
    results = Results(folder)
    write_figures(results, results.folder / "figures")
    write_report(results)
    click.echo(log_run(results, mode="required"))


def find_run(name: str) -> Path:
    """Return the run folder of this path, or of this name inside ``runs``.

    Raises:
        RunError: there is none; the message names the runs there are.
    """
    for folder in (Path(name), Path("runs") / name):
        if (folder / "spec.json").is_file():
            return folder
    known = ", ".join(path.parent.name for path in sorted(Path("runs").glob("*/spec.json"))) or "none here"
    raise RunError(f"no run {name!r}: neither {name}/spec.json nor runs/{name}/spec.json exists. Runs: {known}.")
