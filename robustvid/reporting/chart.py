"""Charts of the page: where lines, marks and cells lie in an SVG; the template draws them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robustvid.reporting.panels import Line, Panel, area, cell_edges, line_colours, median_radius, rows, ticks

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 46, 466, 14, 270
_DASHES = ("", "7 3", "2 3", "6 3 2 3", "10 3 2 3 2 3")
_MARKS = ("M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", "M-4,-4h8v8h-8z", "M0,-5l5,9h-10z", "M0,-5l5,5l-5,5l-5,-5z")
_SCALE = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")  # viridis: even in brightness, for every eye
_LEVELS = {25: "2 4", 50: "", 75: "8 4"}
_LABEL_ROOM = 36  # pixels that a tick's number needs


def chart(panel: Panel, model: str) -> dict[str, Any]:
    """Return all that the template needs to draw a panel."""
    facts = {
        "name": panel.name,
        "title": panel.title,
        "text": panel.describe(),
        "x_label": panel.axes[0].label,
        "surface": panel.surface,
        "n": int(panel.lines[0].points.n.iloc[0]),
    }
    return facts | (_surface(panel) if panel.surface else _curves(panel, model))


def _curves(panel: Panel, model: str) -> dict[str, Any]:
    worst = panel.lines[0].points
    places, _ = ticks(list(worst.x))
    xs = [LEFT + (RIGHT - LEFT) * place / max(places) for place in places]
    low, high = (list(zip(xs, map(_y, worst[bound]), strict=True)) for bound in ("lo", "hi"))
    half = median_radius(worst)
    styles = zip(panel.lines, line_colours(panel, model), strict=True)
    return {
        "x_ticks": _thinned([(x, f"{value:g}") for x, value in zip(xs, worst.x, strict=True)]),
        "y_ticks": [(_y(share / 100), str(share)) for share in range(0, 101, 20)],
        "band": _points(low + high[::-1]),
        "chance": _y(panel.chance),
        "lines": [_line(line, xs, colour, number) for number, (line, colour) in enumerate(styles)],
        "area": area(worst),
        "median": None if half is None else worst.budget[worst.x == half].iloc[0],
    }


def _line(line: Line, xs: list[float], colour: str, number: int) -> dict[str, Any]:
    ys = [_y(share) for share in line.points.acc]
    return {
        "label": line.label,
        "worst": line.worst,
        "colour": colour,
        "dash": _DASHES[number % len(_DASHES)],
        "mark": _MARKS[number % len(_MARKS)],
        "points": _points(list(zip(xs, ys, strict=True))),
        "marks": [
            (round(x, 1), round(y, 1), f"{line.label}, {_in_words(row)}")
            for x, y, row in zip(xs, ys, rows(line.points), strict=True)
        ],
    }


def _surface(panel: Panel) -> dict[str, Any]:
    points = panel.lines[0].points.drop_duplicates(["x", "y"], keep="last")
    xs, ys = sorted(set(points.x)), sorted(set(points.y), reverse=True)
    wide, high = (RIGHT - LEFT) / len(xs), (BOTTOM - TOP) / len(ys)
    cells = [
        {
            "x": round(LEFT + xs.index(row.x) * wide, 1),
            "y": round(TOP + ys.index(row.y) * high, 1),
            "colour": _colour(row.acc),
            "dark": row.acc < 0.55,
            "share": f"{100 * row.acc:.0f}",
            "title": _in_words(row),
        }
        for row in rows(points)
    ]
    grid = points.pivot_table(index="y", columns="x", values="acc").sort_index(ascending=False)
    return {
        "y_label": panel.axes[1].label,
        "x_ticks": [(LEFT + (place + 0.5) * wide, f"{value:g}") for place, value in enumerate(xs)],
        "y_ticks": [(TOP + (place + 0.5) * high, f"{value:g}") for place, value in enumerate(ys)],
        "cells": cells,
        "wide": round(wide, 1),
        "high": round(high, 1),
        "borders": [(level, dash, _border(grid, level, wide, high)) for level, dash in _LEVELS.items()],
    }


def _border(grid: pd.DataFrame, level: int, wide: float, high: float) -> str:
    edges = cell_edges((100 * grid >= level).to_numpy())
    corners = [[(LEFT + x * wide, TOP + y * high) for x, y in zip(*edge, strict=True)] for edge in edges]
    return "".join(f"M{a:.1f},{b:.1f}L{c:.1f},{d:.1f}" for (a, b), (c, d) in corners)


def _in_words(row: Any) -> str:
    return (
        f"{row.budget}: {100 * row.acc:.1f} % [{100 * row.lo:.1f}, {100 * row.hi:.1f}], {row.correct} of {row.n} clips"
    )


def _y(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share


def _points(pairs: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def _thinned(labels: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Leave a tick without its number where the next one would touch it; the largest value keeps its own."""
    kept: list[tuple[float, str]] = []
    limit = float("inf")
    for x, text in reversed(labels):
        fits = limit - x >= _LABEL_ROOM
        kept.append((x, text if fits else ""))
        limit = x if fits else limit
    return kept[::-1]


def _colour(share: float) -> str:
    place = min(share, 0.9999) * (len(_SCALE) - 1)
    pairs = zip(*(bytes.fromhex(colour[1:]) for colour in _SCALE[int(place) : int(place) + 2]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place % 1)):02x}" for a, b in pairs)
