"""A model before and after compression: what it costs, and what is left of its robustness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from robustvid.budget import Budget
from robustvid.compression.cost import Latency, Size, latencies, size
from robustvid.contracts import VideoDataset
from robustvid.evaluation.cards import Battery, load_attack, load_battery
from robustvid.evaluation.results import Results, wilson
from robustvid.evaluation.sweep import evaluate
from robustvid.evaluation.waves import Progress
from robustvid.models.classifier import VideoClassifier
from robustvid.models.deployed import twin_of

BATTERY, STRAIGHT, TWIN, SQUARE = "standard", "attacked", "through its twin", "square"


class Row(NamedTuple):
    """One model of a comparison.

    Attributes:
        name: what it is called.
        n: clips measured.
        clean: how many of them are right.
        ways: how many stand, for each way of attack; one way for models that have a gradient, three for exported ones.
        robust: how many stand against every way.
        runs: the run folders, in the order of the ways.
        size: parameters, bytes, operations.
        latency: time for a clip, all models in turns.
    """

    name: str
    n: int
    clean: int
    ways: dict[str, int]
    robust: int
    runs: list[Path]
    size: Size
    latency: Latency

    def facts(self) -> dict[str, Any]:
        """Return the row as JSON holds it, with 95 % Wilson intervals in per cent."""
        return {
            "model": self.name,
            "n": self.n,
            "clean": _share(self.clean, self.n),
            "robust": _share(self.robust, self.n),
            "ways": {way: _share(count, self.n) for way, count in self.ways.items()},
            **self.size._asdict(),
            "latency_ms_p50": self.latency.p50,
            "latency_ms_p95": self.latency.p95,
            "clips_per_s": self.latency.clips_per_second,
        }


def compare(
    models: Mapping[str, VideoClassifier],
    data: VideoDataset,
    budget: Budget,
    *,
    battery: Battery | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    threads: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> list[Row]:
    """Measure models side by side: sizes, latencies in turns, and robust accuracy on the same clips.

    Runs lie under ``runs`` as those of ``evaluate`` do: the same call again repeats nothing.

    A model that computes in torch meets the battery. An exported one has no gradient of its own, and "robust" would
    mean nothing: it meets the battery with the gradient of its float twin, straight through the rounding; what the
    battery finds for the twin; and Square, which asks for logits alone. A clip stands if it stands against all three.

    Args:
        models: by name; the first is what the others are compared with.
        data: test split.
        budget: what perturbations may be.
        battery: ``standard`` when None.
        limit: how many clips, drawn by ``seed``.
        seed: of every random draw.
        device: where attacks run; a GPU when there is one.
        threads: CPU threads for the latencies.
        progress: called after every batch of attacks.
    """
    attacks = battery or load_battery(BATTERY)
    rows = []
    times = latencies(models, threads)
    for name, model in models.items():
        ways: dict[str, tuple[Any, VideoClassifier | None]] = {STRAIGHT: (attacks, None)}
        if (twin := twin_of(model)) is not None:
            ways |= {TWIN: (attacks, twin), SQUARE: (load_attack("square"), None)}
        runs = {
            way: evaluate(
                model,
                data,
                attack,
                [budget],
                surrogate=surrogate,
                limit=limit,
                seed=seed,
                device=device,
                progress=progress,
            )
            for way, (attack, surrogate) in ways.items()
        }
        standing = {way: _standing(run, budget) for way, run in runs.items()}
        rows.append(
            Row(
                name,
                len(standing[STRAIGHT]),
                int(runs[STRAIGHT].clean["correct"]),
                {way: int(clips.sum()) for way, clips in standing.items()},
                int(pd.concat(standing.values(), axis=1).all(axis=1).sum()),
                [run.folder for run in runs.values()],
                size(model),
                times[name],
            )
        )
    return rows


def _standing(run: Results, budget: Budget) -> pd.Series[bool]:
    """Return whether each clip stands, by the clip's id."""
    verdicts = run.verdicts(run.threats[0]).set_index("sample")
    return verdicts[budget.describe()].astype(bool)


def _share(count: int, n: int) -> list[float]:
    return [round(100 * share, 1) for share in (count / n, *wilson(count, n))]
