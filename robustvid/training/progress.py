"""A training as people watch it: a bar on a terminal, and a line for every epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustvid.training.loop import TrainingProgress

log = logging.getLogger("robustvid")


@contextmanager
def training_progress(epochs: int) -> Iterator[Callable[[TrainingProgress], None]]:
    """Yield what :func:`robustvid.train` calls after every update: it draws on stderr.

    Args:
        epochs: of the whole training.
    """
    console = Console(stderr=True)
    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f} updates"),
        TextColumn("{task.fields[rate]}", style="dim"),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=0, rate="", loss="")

        def show(progress: TrainingProgress) -> None:
            loss = "" if math.isnan(progress.loss) else f"{progress.loss:.3f}"
            rate = f"{progress.clips_per_second:.1f} clips/s"
            bar.update(task, completed=progress.step, total=progress.steps, rate=rate, loss=loss)
            if progress.record:
                bar.console.print(epoch_line(progress.record, epochs), highlight=False, soft_wrap=True)
                for alarm in progress.record["alarms"]:
                    log.warning("%s", alarm)

        yield show


def epoch_line(record: dict[str, Any], epochs: int) -> str:
    """Return what one epoch measured, in one line."""
    parts = [
        f"epoch {record['epoch']}/{epochs}",
        f"loss {record['train/loss']:.3f}",
        f"train {record['train/acc']:.0%}",
    ]
    held = {"clean": "val/clean_acc", "robust": "val/robust_acc", "one step": "val/fgsm_acc"}
    told = [f"{name} {record[key]:.0%}" for name, key in held.items() if key in record]
    return "  ".join([*parts, *(["held out: " + ", ".join(told)] if told else [])])
