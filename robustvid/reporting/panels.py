"""Panels: what there is to draw of a run, so that plots, page, terminal and MLflow agree on axes, lines and colours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from robustvid.budget import Budget, format_radius
from robustvid.evaluation.results import WORST, Results
from robustvid.evaluation.threats import Threat

# Okabe and Ito's colours, told apart by colour-blind readers too; black and yellow are left out for the sake of
# dark and white pages.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GREY = "#8a8f98"
_MOST_LINES = 16
_COLUMNS = ("eps_frame", "eps_clip", "frames")


class Axis(NamedTuple):
    """One axis of a panel.

    Attributes:
        column: ``eps_frame``, ``eps_clip`` or ``frames``.
        label: what is written along it, with the unit.
        scale: a radius times this is in the axis's unit.
    """

    column: str
    label: str
    scale: float


@dataclass(frozen=True)
class Line:
    """One curve, or one surface, of a panel.

    Attributes:
        name: the attack, or ``"worst"``.
        label: the same in words.
        points: the lines of :meth:`Results.curve`, with ``budget`` in words, ``x`` and ``y`` in the units of the axes
            and ``cell``, the place of the budget in the threat, -1 for the clean clips.
    """

    name: str
    label: str
    points: pd.DataFrame

    @property
    def worst(self) -> bool:
        """Return whether this is the worst case over all attacks."""
        return self.name == WORST


@dataclass(frozen=True)
class Panel:
    """Budgets of one threat that go into one drawing.

    Attributes:
        threat: name of the threat.
        name: name of files: the threat, and what is held fixed where one threat needs several panels.
        title: the threat in words.
        axes: one axis for curves, two for a surface.
        lines: the worst case first.
        clean: accuracy without an attack.
        chance: accuracy of a guess.
    """

    threat: str
    name: str
    title: str
    axes: tuple[Axis, ...]
    lines: tuple[Line, ...]
    clean: float
    chance: float

    @property
    def surface(self) -> bool:
        """Return whether two radii vary, so that a heat map is drawn."""
        return len(self.axes) == 2

    def describe(self) -> str:
        """Return the worst case as text, for readers who do not see the drawing."""
        points = self.lines[0].points
        shares = [f"{row.budget} {100 * row.acc:.1f} %" for row in rows(points)]
        return f"Robust accuracy, {self.title}: {'; '.join(shares)}; n = {points.n.iloc[0]}."


def rows(table: pd.DataFrame) -> list[Any]:
    """Return the rows of a table as named tuples."""
    return list(table.itertuples())


def panels(results: Results) -> list[Panel]:
    """Return what there is to draw of a run: one panel for each threat under which a clip is finished.

    Where frame radius, clip radius and number of frames all vary, there is one panel for each number of frames.
    """
    found = [panel for threat in results.plan.threats for panel in _threat_panels(results, threat)]
    return [panel for panel in found if panel.lines[0].points.n.iloc[0] > 0]


def model_colour(name: str) -> str:
    """Return the colour of a model, the same everywhere."""
    return COLOURS[hashlib.sha256(name.encode()).digest()[0] % len(COLOURS)]


def line_colours(panel: Panel, model: str) -> list[str]:
    """Return a colour for each line: the model's for the worst case, grey where the colours run out."""
    own = model_colour(model)
    others = [colour for colour in COLOURS if colour != own]
    return [own, *others, *[GREY] * len(panel.lines)][: len(panel.lines)]


def ticks(values: list[float]) -> tuple[list[float], bool]:
    """Return where measured values lie on an axis that starts at 0, and whether the axis is logarithmic.

    The axis is linear while neighbours stay apart. A doubling grid would collide near 0; it gets an axis that is
    linear up to the smallest value and base 2 beyond.

    Example:
        >>> ticks([0.0, 0.25, 0.5, 1.0, 8.0])
        ([0.0, 1.0, 2.0, 3.0, 6.0], True)
    """
    positive = sorted({value for value in values if value > 0})
    gaps = np.diff([0.0, *positive])
    if gaps.min() * 14 > positive[-1] or gaps.max() < 4 * gaps.min():
        return values, False
    return [_symlog(value, positive[0]) for value in values], True


def area(points: pd.DataFrame) -> float:
    """Return the mean accuracy over radii from 0 to the largest one: the area under the robust curve."""
    from scipy.integrate import trapezoid

    return float(trapezoid(points.acc, points.x) / points.x.max())


def median_radius(points: pd.DataFrame) -> float | None:
    """Return the smallest measured radius at which at most half of the clips stand; None if they always do."""
    fallen = points[points.acc <= 0.5]
    return float(fallen.x.iloc[0]) if len(fallen) else None


def cell_edges(above: Any) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the edges between true and false cells of a grid, as pairs of x and pairs of y; rows run downwards."""
    rows, columns = above.shape
    upright = [
        ((column + 1, column + 1), (row, row + 1))
        for row in range(rows)
        for column in range(columns - 1)
        if above[row, column] != above[row, column + 1]
    ]
    level = [
        ((column, column + 1), (row + 1, row + 1))
        for row in range(rows - 1)
        for column in range(columns)
        if above[row, column] != above[row + 1, column]
    ]
    return upright + level


def _symlog(value: float, threshold: float) -> float:
    return value / threshold if value <= threshold else float(1 + np.log2(value / threshold))


def _threat_panels(results: Results, threat: Threat) -> list[Panel]:
    varying = [name for name in _COLUMNS if len({_value(budget, name) for budget in threat.budgets}) > 1]
    names = tuple(varying or [next(name for name in _COLUMNS if _value(threat.budgets[0], name) is not None)])
    chance = 1 / len(results.spec["model"]["classes"])
    frames = results.plan.clip.length
    lines = _lines(results, threat)
    axes = tuple(_axis(threat, name, frames) for name in names[:2])
    fixed = [name for name in _COLUMNS if name not in names and _value(threat.budgets[0], name) is not None]
    note = "".join(f", {_fixed_text(threat.budgets[0], name)}" for name in fixed)
    if len(names) < 3:
        return [_panel(threat, threat.name, note, axes, lines, chance, frames)]
    limits = list(dict.fromkeys(budget.frames for budget in threat.budgets))
    return [
        _panel(
            threat,
            f"{threat.name}-{limit or frames}",
            f", {limit or frames} frames",
            axes,
            [(name, label, _rows_of(curve, threat, limit)) for name, label, curve in lines],
            chance,
            frames,
        )
        for limit in limits
    ]


def _panel(  # noqa: PLR0917  the parts of one panel
    threat: Threat,
    name: str,
    note: str,
    axes: tuple[Axis, ...],
    lines: list[tuple[str, str, pd.DataFrame]],
    chance: float,
    frames: int,
) -> Panel:
    placed = tuple(Line(line, label, _placed(curve, threat, axes, frames)) for line, label, curve in lines)
    return Panel(threat.name, name, _title(threat) + note, axes, placed, float(lines[0][2].acc.iloc[0]), chance)


def _lines(results: Results, threat: Threat) -> list[tuple[str, str, pd.DataFrame]]:
    """Return name, label and curve of the worst case and of every attack that differs from it by construction."""
    groups = results.plan.groups
    single = [
        (attack.name, " + ".join(before.name for before in group[: place + 1]))
        for group in groups
        for place, attack in enumerate(group)
    ]
    worst = "worst case" if len(single) > 1 else single[0][1]
    if len(groups) == 1:
        single.pop()
    if len(single) > _MOST_LINES:  # nobody could tell them apart; the tables have them
        single = []
    curves = [(WORST, worst, results.curve(threat.name))]
    curves += [(name, label, results.curve(threat.name, name)) for name, label in single]
    return [(name, label, _numbered(curve, threat)) for name, label, curve in curves]


def _numbered(curve: pd.DataFrame, threat: Threat) -> pd.DataFrame:
    budgets = ["clean", *(budget.describe() for budget in threat.budgets)]
    return curve.assign(budget=budgets, cell=range(-1, len(threat.budgets)))


def _rows_of(curve: pd.DataFrame, threat: Threat, limit: Any) -> pd.DataFrame:
    keep = [cell < 0 or threat.budgets[cell].frames == limit for cell in curve.cell]
    return curve[keep]


def _placed(curve: pd.DataFrame, threat: Threat, axes: tuple[Axis, ...], frames: int) -> pd.DataFrame:
    """Add ``x`` and ``y``; a surface has no clean point, because every one of its edges is the clean accuracy."""
    if len(axes) == 2:
        curve = curve[curve.cell >= 0]
    budgets = [None if cell < 0 else threat.budgets[cell] for cell in curve.cell]
    places = {
        letter: [_number(budget, axis, frames) for budget in budgets] for letter, axis in zip("xy", axes, strict=False)
    }
    return curve.assign(**places).reset_index(drop=True)


def _number(budget: Budget | None, axis: Axis, frames: int) -> float:
    if budget is None:
        return 0.0
    value = _value(budget, axis.column)
    return float(frames if value is None else round(float(value) * axis.scale, 9))


def _value(budget: Budget, column: str) -> Any:
    return {"eps_frame": budget.frame, "eps_clip": budget.clip, "frames": budget.frames}[column]


def _fixed_text(budget: Budget, column: str) -> str:
    if column == "frames":
        return f"{budget.frames} frames"
    part = f" per {column.removeprefix('eps_')}" if budget.frame is not None and budget.clip is not None else ""
    return f"ε{part} = {format_radius(_value(budget, column))}"


def _axis(threat: Threat, column: str, frames: int) -> Axis:
    if column == "frames":
        return Axis(column, f"frames that may change, of {frames}", 1)
    part = column.removeprefix("eps_")
    if threat.budgets[0].norm == "linf":
        return Axis(column, f"ε of every {part}, in 1/255", 255)
    return Axis(column, f"ε of {'every' if part == 'frame' else 'the whole'} {part}, ℓ2", 1)


def _title(threat: Threat) -> str:
    budget = threat.budgets[0]
    norm = {"linf": "ℓ∞", "l2": "ℓ2"}[budget.norm]
    parts = [part for part, radius in (("frame", budget.frame), ("clip", budget.clip)) if radius is not None]
    return f"{norm} per {' and per '.join(parts)}"
