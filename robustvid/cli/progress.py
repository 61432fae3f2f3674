"""Progress of a sweep on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def sweep_progress() -> Iterator[Callable[[Any], None]]:
    """Yield what :func:`robustvid.evaluate` calls after every batch."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f} clips"),
        TextColumn("{task.fields[rate]}", style="dim"),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[standing]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("attack", total=0, rate="", standing="")
        begin = _Clock()

        def show(progress: Any) -> None:
            rate = f"{begin.rate(progress.done):.1f}/s"
            standing = _standing(progress)
            bar.update(task, completed=progress.done, total=progress.total, rate=rate, standing=standing)

        yield show


@contextmanager
def counted(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Yield what is called with how many are done, and of how many where that was not known: a bar on a terminal.

    Args:
        what: is counted: ``"videos checked"``.
        total: how many there are.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(what),
        TextColumn("{task.fields[rate]}", style="dim"),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total, rate="")

        def show(done: int, total: int | None = total) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "")

        yield show


class _Clock:
    """The rate since the first report: what an earlier run had done already does not count."""

    def __init__(self) -> None:
        self.begin, self.already = time.monotonic(), 0.0
        self.seen = False

    def rate(self, done: float) -> float:
        if not self.seen:
            self.seen, self.already = True, done
        return (done - self.already) / max(time.monotonic() - self.begin, 1e-9)


class _Lines:
    """A line every fifteen seconds, for logs."""

    def __init__(self) -> None:
        self.clock, self.last = _Clock(), time.monotonic()

    def __call__(self, progress: Any) -> None:
        rate = self.clock.rate(progress.done)
        if time.monotonic() - self.last < _SECONDS_BETWEEN_LINES:
            return
        self.last = time.monotonic()
        left = f", {(progress.total - progress.done) / rate:.0f} s left" if rate > 0 else ""
        click.echo(
            f"{progress.done:.0f}/{progress.total} clips, {rate:.1f} clips/s{left}  {_standing(progress)}", err=True
        )


def _standing(progress: Any) -> str:
    if not progress.judged:
        return ""
    return f"robust {progress.standing / progress.judged:.0%} at {progress.budget}"
