"""What robustness costs: robust accuracy against latency and size, with the models that no other one beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustvid.reporting.figures import drawing_style, label_svg

_BLUE, _GREY = "#0072b2", "#6b7280"
_NEAR, _LINE = 1.3, 0.035  # ratio of costs below which labels may overlap; height of one as a share of the axis
_COSTS = {"latency_ms_p50": "milliseconds a clip, alone, p50", "megabytes": "megabytes"}


def front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Return the places of those for which none costs no more and gains no less, cheapest first; of equals the first.

    Example:
        >>> front([1.0, 2.0, 3.0, 2.5], [40.0, 50.0, 45.0, 60.0])
        [0, 1, 3]
    """
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -gains[place]))
    kept: list[int] = []
    for place in order:
        if not kept or gains[place] > gains[kept[-1]]:
            kept.append(place)
    return kept


def write_pareto(rows: Sequence[Mapping[str, Any]], title: str, folder: str | Path) -> list[Path]:
    """Draw ``pareto.svg`` and ``pareto.png``: robust accuracy against latency and against size.

    Args:
        rows: facts of models as ``Row.facts`` of a comparison returns them.
        title: above the figure.
        folder: where to put the files.

    Returns:
        The files written.
    """
    from matplotlib.figure import Figure

    with drawing_style():
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        for axes, (cost, label) in zip(figure.subplots(1, 2, sharey=True), _COSTS.items(), strict=True):
            _draw(axes, rows, cost)
            axes.set_xlabel(label)
        figure.axes[0].set_ylabel("robust accuracy, %")
        figure.suptitle(title, x=0.01, ha="left", parse_math=False)
        paths = [Path(folder) / f"pareto.{suffix}" for suffix in ("svg", "png")]
        figure.savefig(paths[0], metadata={"Title": title, "Date": None})
        figure.savefig(paths[1], dpi=160, metadata={"Title": title})
    told = "; ".join(f"{row['model']} {row['robust'][0]:g} % at {row['latency_ms_p50']:.2f} ms" for row in rows)
    label_svg(paths[0], f"{title}, robust accuracy: {told}")
    return paths


def _draw(axes: Any, rows: Sequence[Mapping[str, Any]], cost: str) -> None:
    """Draw models as points with their intervals, and a line through those that no other one beats."""
    costs, robust = [row[cost] for row in rows], [row["robust"][0] for row in rows]
    best = front(costs, robust)
    axes.plot([costs[place] for place in best], [robust[place] for place in best], "--", color=_BLUE, lw=1.1)
    top = max(row["robust"][2] for row in rows) + 5
    labels: list[tuple[float, float]] = []
    for place in sorted(range(len(rows)), key=lambda place: -robust[place]):
        value, low, high = rows[place]["robust"]
        axes.errorbar(
            costs[place], value, [[value - low], [high - value]], fmt="o", color=_BLUE if place in best else _GREY,
            mfc=_BLUE if place in best else "white", capsize=2, lw=1, ms=7,
        )  # fmt: skip
        above = [y for x, y in labels if 1 / _NEAR < x / costs[place] < _NEAR]
        labels.append((costs[place], min([value + 0.02 * top, *(y - _LINE * top for y in above)])))
        axes.annotate(
            rows[place]["model"], (costs[place], value), (1.03 * costs[place], labels[-1][1]), textcoords="data",
            fontsize="x-small", va="center",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.minorticks_off()
    ticks = _round_ticks(min(costs), max(costs))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(min(costs) / 1.2, max(costs) * 1.6)
    axes.set_ylim(0, top)


def _round_ticks(low: float, high: float) -> list[float]:
    decades = (digit * 10.0**power for power in range(-4, 7) for digit in (1, 2, 5))
    return [tick for tick in decades if low / 1.2 <= tick <= 1.6 * high]
