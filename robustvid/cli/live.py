"""``robustvid live``: a model on a stream."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import click

from robustvid.cli.options import DEVICE, all_of


@dataclass(frozen=True)
class Options:
    """What ``robustvid live`` was asked; the options' help says what each means."""

    source: str
    model: str
    every: int | None
    window: int | None
    speed: float
    alarms: tuple[str, ...]
    on_alarm: str | None
    events: str | None
    perturb: str | None
    stall: float
    threads: int
    device: str | None


_OPTIONS = (
    click.option("-m", "--model", default="conv3d", show_default=True, help="Zoo name, folder, or module:function."),
    click.option("--every", type=click.IntRange(min=1), help="Frames between two windows.  [default: half a window]"),
    click.option(
        "--window", type=click.IntRange(min=1), help="Frames a window covers.  [default: as the model's clips]"
    ),
    click.option(
        "--speed",
        type=click.FloatRange(min=0),
        default=1.0,
        show_default=True,
        help="Of a file; 0 looks at every window, however long it takes.",
    ),
    click.option(
        "--alarm",
        "alarms",
        multiple=True,
        metavar="LABEL:THRESHOLD[:HOLD]",
        help="Ring once LABEL has had this confidence for HOLD seconds; repeatable.",
    ),
    click.option("--on-alarm", metavar="COMMAND", help="Run this then, with the JSON line in $ROBUSTVID_ALARM."),
    click.option("--events", type=click.Path(), metavar="FOLDER", help="Write a video of what rang into this folder."),
    click.option(
        "--perturb",
        type=click.Path(),
        metavar="FILE",
        help="Add a perturbation to the stream: a file of a run's folder perturbations, as -a universal leaves.",
    ),
    click.option(
        "--stall",
        type=click.FloatRange(min=0, min_open=True),
        default=10.0,
        show_default=True,
        help="Seconds without a byte after which a stream is lost; it is then tried again and again.",
    ),
    click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of the model, on a CPU."),
    DEVICE,
)


@click.command(
    epilog="""\b
Examples:
  robustvid live video.mp4
  robustvid live rtsp://camera/stream --alarm left:0.8:2 --on-alarm 'notify-send left' --events events
  robustvid live recordings/ --model runs/conv3d-int8
  robustvid live video.mp4 --speed 0 --every 1 > seen.jsonl
"""
)
@click.argument("source")
@all_of(_OPTIONS)
def live(**options: Any) -> None:
    """Classify a stream window by window: a file, a folder that grows, a camera's number or an address.

    One JSON line for each window on stdout: time in the source, frame, label, confidence, latency. A file plays in
    real time. Where the machine is late, windows give way to newer ones, and frames are left out; at the end it says
    how many. Ctrl-C ends it. A folder's videos are read as they appear, every window of them.
    """
    sys.exit(_watch(Options(**options)))


def _watch(asked: Options) -> int:
    """Watch, and return the exit status: 130 after Ctrl-C."""
    import torch

    import robustvid as rv
    from robustvid.evaluation.fitting import read_perturbation

    torch.set_num_threads(asked.threads)
    if asked.on_alarm is not None and not asked.alarms:
        raise click.UsageError("--on-alarm says what to run, and no --alarm says when")
    command = _split(asked.on_alarm)
    stream = rv.live.watch(
        rv.load_model(asked.model),
        asked.source,
        every=asked.every,
        window=asked.window,
        speed=asked.speed,
        alarms=[rv.live.Alarm.parse(text) for text in asked.alarms],
        events=asked.events,
        perturbation=read_perturbation(asked.perturb)[0] if asked.perturb else None,
        stall=asked.stall,
        device=asked.device,
    )
    click.echo(f"{asked.model} on {asked.source}: {stream.span} frames every {stream.every}; Ctrl-C ends it", err=True)
    status = 0
    try:
        with stream, closing(iter(stream)) as windows:
            for seen in windows:
                line = _line(seen)
                print(line, flush=True)  # noqa: T201  click.echo would hide a reader that has gone
                if seen.alarms and command:
                    _run(command, line)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # whoever read the lines has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    click.echo(_words(stream.summary()), err=True)
    return status


def _split(command: str | None) -> list[str]:
    try:
        return shlex.split(command or "")
    except ValueError as error:
        raise click.UsageError(f"--on-alarm {command}: {error}") from error


def _run(command: list[str], line: str) -> None:
    """Start the command, without waiting for it; what it prints goes to stderr."""
    try:
        subprocess.Popen(  # noqa: S603  it is the user's own
            command, env=os.environ | {"ROBUSTVID_ALARM": line}, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno()
        )
    except OSError as error:
        click.echo(f"warning: --on-alarm cannot be run: {error}", err=True)


def _line(seen: Any) -> str:
    facts: dict[str, Any] = {
        "time": round(seen.time, 3),
        "frame": seen.frame,
        "label": seen.label,
        "confidence": round(seen.confidence, 4),
        "latency_ms": round(1000 * seen.latency, 2),
    }
    return json.dumps(facts | ({"alarms": list(seen.alarms)} if seen.alarms else {}))


def _words(summary: Any) -> str:
    late = [
        f"{summary.dropped:,} frames were left out, because reading was late" if summary.dropped else "",
        f"{summary.skipped:,} windows gave way to newer ones, because the model was late" if summary.skipped else "",
        f"{summary.missed:,} windows were answered only when the next one was due" if summary.missed else "",
        f"the stream was lost {summary.lost:,} times" if summary.lost else "",
    ]
    told = [f"{summary.windows:,} windows of {summary.frames:,} frames, {summary.alarms:,} alarms"]
    if summary.p50 is not None:
        told.append(f"latency {summary.p50:.1f} ms p50, {summary.p95:.1f} ms p95, {summary.p99:.1f} ms p99")
    return "\n".join(told + [line for line in late if line])
