"""The page of all boards: one offline HTML file that can be sorted, searched, compared and quoted."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

import robustvid
from robustvid.evaluation.results import wilson
from robustvid.leaderboard.boards import PROTOCOL, Board
from robustvid.leaderboard.checking import sound_entries
from robustvid.leaderboard.entries import Entry
from robustvid.leaderboard.ranking import LEVEL, Place, places
from robustvid.leaderboard.timing import TIMES, read_times
from robustvid.reporting import chart as charts
from robustvid.reporting.page import explained, number_table, player_facts, render_page
from robustvid.reporting.panels import Axis, Line, Panel, area, panels, ticks

ALL_PICTURES = 6_000_000  # characters of base64, so that the page stays below 10 MB
_SPARK = (96, 26)
_BARS = 60  # height of the bars of frames
_FEW = 10  # a class with fewer clips than this is shown in grey


def write_page(
    boards: Sequence[Board], path: Path, progress: Callable[[], None] | None = None
) -> tuple[Path, dict[str, list[str]]]:
    """Write the page.

    Args:
        boards: shown in this order, those without entries last, and attacks before corruptions.
        path: the file; its folder is made.
        progress: called after every entry that was checked.

    Returns:
        The file, and the faults of what was left out, by ``board/entry``.
    """
    left_out: dict[str, list[str]] = {}
    clips: list[dict[str, Any]] = []
    room = ALL_PICTURES
    shown = []
    for board in boards:
        sound, faults = sound_entries(board, progress)
        left_out |= {f"{board.name}/{name}": found for name, found in faults.items()}
        if PROTOCOL in faults:
            continue
        pages = []
        for entry in sound:
            own: list[tuple[int, dict[str, Any]]] = []
            for clip in entry.clips:
                room -= len(clip["clean"]) + len(clip["adversarial"])
                if room >= 0:
                    own.append((len(clips), clip))
                    clips.append(clip)
            pages.append(_entry(entry, board, own))
        shown.append(_board(board, sound, pages, None if TIMES in faults else read_times(board)))
    shown.sort(key=lambda board: (not board["rows"], bool(board["board"].corruptions), -len(board["rows"])))
    text = render_page(
        "leaderboard",
        boards=shown,
        frame=charts,
        clip_facts=player_facts(clips),
        compared={board["name"]: board["compare"] for board in shown},
        version=robustvid.__version__,
        level=LEVEL,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    temporary.replace(path)
    return path, left_out


def _board(
    board: Board, entries: list[Entry], pages: list[dict[str, Any]], times: dict[str, Any] | None
) -> dict[str, Any]:
    ranked = places(board, entries)
    timed = times["models"] if times else {}
    worst = {page["id"]: page["worst"] for page in pages}
    rows = [
        _row(place, board, worst[place.entry.id]) | {"ms": timed.get(place.entry.id, {}).get("p50")} for place in ranked
    ]
    drawn = {page["id"]: page["drawn"] for page in pages}
    return {
        "name": board.name,
        "title": board.title,
        "board": board,
        "headline": board.question,
        "budgets": [budget.describe() for budget in board.budgets],
        "rows": rows,
        "statuses": sorted({row["status"] for row in rows}),
        "archs": sorted({row["arch"] for row in rows}),
        "entries": pages,
        "compare": _compare(drawn, {row["id"]: row["title"] for row in rows}),
        "times": times,
        "trades": _trades(rows),
        "csv": _data_url("text/csv", _csv(rows)),
        "json": _data_url("application/json", json.dumps([_plain(row) for row in rows], indent=1)),
        "external": [
            {"id": entry.id, "of": entry.of, "by": entry.facts["by"]} for entry in entries if entry.of is not None
        ],
    }


def _row(place: Place, board: Board, worst: pd.DataFrame) -> dict[str, Any]:
    entry, numbers = place.entry, place.entry.facts["numbers"]
    spec = entry.results.spec
    robust = place.correct / place.n
    return {
        "rank": place.rank,
        "id": entry.id,
        "title": entry.facts["title"] or entry.id,
        "status": place.status,
        "lowered_by": [other.id for other in place.lowered_by],
        "clean": _share(numbers["clean"], numbers["n"]),
        "robust": {"correct": place.correct, "acc": robust, "lo": place.lo, "hi": place.hi},
        "n": place.n,
        "area": area(worst) if not board.corruptions else robust * place.n / max(1, numbers["clean"]),
        "spark": _spark(worst),
        "parameters": entry.facts["parameters"],
        "forwards_per_clip": round((numbers["cost"]["forwards"] + numbers["cost"]["backwards"]) / place.n),
        "training": entry.facts["training"],
        "arch": spec["model"]["arch"],
        "by": entry.facts["by"],
        "date": entry.facts["date"],
    }


def _entry(entry: Entry, board: Board, clips: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    results, facts = entry.results, entry.facts
    name = results.spec["model"]["name"]
    found = _panels(entry, board)
    drawn = [(panel.name, charts.chart(panel, name)) for panel in found]
    classes = [
        line | {"few": line["n"] < _FEW, "before": line["clean"] / line["n"], "after": line["robust"] / line["n"]}
        for line in facts["numbers"]["classes"]
    ]
    return {
        "id": entry.id,
        "facts": facts,
        "title": facts["title"] or entry.id,
        "status": entry.status,
        "spec": results.spec,
        "clean": _share(facts["numbers"]["clean"], facts["numbers"]["n"]),
        "charts": [chart for _, chart in drawn],
        "drawn": dict(drawn),
        "worst": next(panel for panel in found if panel.threat == board.threat.name).lines[0].points,
        "tables": [] if board.corruptions else [number_table(results, threat) for threat in results.threats],
        "corruptions": [
            {"kind": line["kind"], "shares": [_share(correct, facts["numbers"]["n"]) for correct in line["correct"]]}
            for line in facts["numbers"]["corruptions"]
        ],
        "flags": explained(results),
        "classes": sorted(classes, key=lambda line: line["after"]),
        "energies": [_energy(threat, profiles) for threat, profiles in entry.frames.items()],
        "survival": results.survival,
        "clips": clips,
        "kept": len(entry.clips),
        "machine": _machine(results.environment),
        "command": shlex.join(["robustvid", "attack", "--board", board.name, "--model", facts["source"]]),
    }


def _energy(threat: str, profiles: list[list[float]]) -> dict[str, Any]:
    """Return the bars of a threat: the perturbation of each frame, the mean over clips as a root mean square."""
    means = [math.sqrt(sum(rms * rms for rms in frame) / len(frame)) for frame in zip(*profiles, strict=True)]
    most, wide = max(*means, 1e-9), (charts.RIGHT - charts.LEFT) / len(means)
    return {
        "threat": threat,
        "clips": len(profiles),
        "most": most,
        "bars": [
            {
                "x": round(charts.LEFT + place * wide + 1, 1),
                "wide": round(wide - 2, 1),
                "high": round(_BARS * value / most, 1),
                "title": f"frame {place + 1}: {value:.2f}/255",
            }
            for place, value in enumerate(means)
        ],
        "text": "; ".join(f"frame {place + 1} {value:.2f}" for place, value in enumerate(means)),
    }


def _machine(environment: dict[str, Any]) -> str:
    versions = environment.get("versions")
    told = [f"{name} {version}" for name, version in versions.items() if version] if isinstance(versions, dict) else []
    return ", ".join(str(part) for part in (environment.get("device"), environment.get("system"), *told) if part)


def _panels(entry: Entry, board: Board) -> list[Panel]:
    """Return what to draw: the panels of a run, or, for corruptions, the mean over kinds against the severity."""
    if not board.corruptions:
        return panels(entry.results)
    numbers = entry.facts["numbers"]
    counts = [numbers["clean"], *(sum(found) / len(found) for found in _by_severity(numbers))]
    shares = [correct / numbers["n"] for correct in counts]
    points = pd.DataFrame({"x": range(len(counts)), "correct": counts, "acc": shares, "lo": shares, "hi": shares})
    points = points.assign(n=numbers["n"], budget=["clean", *(f"severity {s}" for s in points.x[1:])])
    chance = 1 / len(entry.results.spec["model"]["classes"])
    line = Line("worst", "mean over all kinds", points)
    axes = (Axis("severity", "severity of the corruption", 1),)
    return [Panel(board.threat.name, "severity", "all corruptions", axes, (line,), shares[0], chance)]


def _by_severity(numbers: dict[str, Any]) -> list[tuple[int, ...]]:
    return list(zip(*(line["correct"] for line in numbers["corruptions"]), strict=True))


def _share(correct: int, n: int) -> dict[str, Any]:
    lo, hi = wilson(correct, n)
    return {"correct": correct, "acc": correct / n, "lo": lo, "hi": hi}


def _spark(points: Any) -> dict[str, str]:
    places, _ = ticks(list(points.x))
    xs = [2 + (_SPARK[0] - 4) * place / max(places) for place in places]
    lines = {
        name: [(x, _SPARK[1] - 2 - (_SPARK[1] - 4) * share) for x, share in zip(xs, points[name], strict=True)]
        for name in ("acc", "lo", "hi")
    }
    return {"line": _points(lines["acc"]), "band": _points(lines["lo"] + lines["hi"][::-1])}


def _points(pairs: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def _compare(drawn: dict[str, dict[str, Any]], titles: dict[str, str]) -> list[dict[str, Any]]:
    """Return for each panel its axes once, and the worst case of every model as the page draws it."""
    found: dict[str, dict[str, Any]] = {}
    for name, title in titles.items():
        for panel, chart in drawn[name].items():
            if chart["surface"]:
                continue
            axes = {key: chart[key] for key in ("title", "x_label", "x_ticks", "y_ticks", "chance")}
            line = {key: chart["lines"][0][key] for key in ("points", "marks")}
            found.setdefault(panel, axes | {"lines": {}})["lines"][name] = line | {"label": title}
    return list(found.values())


def _trades(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return scatter plots: robust accuracy against clean accuracy, and parameters and time of the models that tell."""
    known = [(row, row["parameters"] / 1e6) for row in rows if row["parameters"]]
    timed = [(row, row["ms"]) for row in rows if row["ms"] is not None]
    trades = (
        ("clean accuracy, %", "clean accuracy", [(row, 100 * row["clean"]["acc"]) for row in rows], False),
        ("parameters, millions", "parameters", known, True),
        ("one clip alone, ms", "time", timed, True),
    )
    return [_trade(*trade) for trade in trades if trade[2]]


def _trade(label: str, name: str, places: list[tuple[dict[str, Any], float]], logarithmic: bool) -> dict[str, Any]:  # noqa: FBT001
    if logarithmic:
        values = [value for _, value in places]
        low, high = math.log10(min(values)) - 0.1, math.log10(max(values)) + 0.1
        marks = [
            digit * 10.0**power
            for power in range(math.floor(low), math.ceil(high))
            for digit in ((1, 2, 5) if high - low < 2 else (1,))
            if low <= math.log10(digit * 10.0**power) <= high
        ]
    else:
        low, high, marks = 0.0, 100.0, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]

    def place(value: float) -> float:
        at = math.log10(value) if logarithmic else value
        return round(charts.LEFT + (charts.RIGHT - charts.LEFT) * (at - low) / (high - low), 1)

    points = [
        {
            "x": place(value),
            "y": round(charts.BOTTOM - (charts.BOTTOM - charts.TOP) * row["robust"]["acc"], 1),
            "id": row["id"],
            "title": f"{row['title']}: {100 * row['robust']['acc']:.1f} % robust, {name} {value:.3g}",
        }
        for row, value in places
    ]
    y_ticks = [(charts.BOTTOM - (charts.BOTTOM - charts.TOP) * share / 100, str(share)) for share in range(0, 101, 20)]
    return {
        "name": name,
        "x_label": label,
        "x_ticks": [(place(mark), f"{mark:g}") for mark in marks],
        "y_ticks": y_ticks,
        "points": points,
        "text": f"Robust accuracy against {name}: " + "; ".join(point["title"] for point in points),
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "spark"}


def _csv(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO()
    columns = ["rank", "id", "title", "status", "n", "clean_correct", "clean_acc", "robust_correct", "robust_acc"]
    columns += ["robust_lo", "robust_hi", "area", "parameters", "ms", "forwards_per_clip"]
    columns += ["arch", "training", "by", "date"]
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in rows:
        flat = row | {f"{part}_{key}": value for part in ("clean", "robust") for key, value in row[part].items()}
        writer.writerow([_inert(flat[column]) for column in columns])
    return file.getvalue()


def _inert(value: Any) -> Any:
    """Return text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def _data_url(kind: str, text: str) -> str:
    return f"data:{kind};charset=utf-8,{quote(text)}"
