"""The numbers of an entry, all of them computed from its run."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robustvid.attacks.corruption import SEVERITIES
from robustvid.evaluation.results import Results
from robustvid.leaderboard.boards import Board

_TOLERANCE = 1e-9
_LONGEST_NAME = 500


def compute_numbers(results: Results, board: Board) -> dict[str, Any]:
    """Return what an entry states: counts, from which shares and intervals are computed when the page is built.

    Args:
        results: a complete run within the board's budgets.
        board: what it is entered to.
    """
    verdicts = headline(results, board)
    groups = verdicts.groupby("label")
    audit = results.audit
    return {
        "n": results.n,
        "clean": results.clean["correct"],
        "headline": {"budget": board.headline.describe(), "correct": count(verdicts["stands"])},
        "threats": [
            {"threat": threat.name, "budgets": _cells(results, threat.name, [b.describe() for b in threat.budgets])}
            for threat in results.plan.threats
        ],
        "classes": [
            {
                "class": str(results.spec["model"]["classes"][label]),
                "n": len(group),
                "clean": int(group.clean.sum()),
                "robust": count(group["stands"]),
            }
            for label, group in groups
        ],
        "corruptions": _corruptions(results, board),
        "flags": [dict(flag) for flag in results.flags],
        "audit": {name: audit[name] for name in ("skipped", "checked", "wrong")},
        "left_out": len(results.left_out),
        "cost": results.cost,
    }


def headline(results: Results, board: Board) -> pd.DataFrame:
    """Return what became of every clip at the headline.

    Returns:
        Columns ``sample``, ``digest``, ``label``, ``clean`` and ``stands``: 1 or 0, or, on a board of corruptions, the
        share of them under which the model is right.
    """
    budget, threat = board.headline.describe(), board.threat.name
    names = results.attacks if board.corruptions else [None]
    each = [results.verdicts(threat, name) for name in names]
    stands = sum(verdicts[budget].astype(float) for verdicts in each) / len(each)
    return each[0][["sample", "digest", "label", "clean"]].assign(stands=stands)


def count(stands: pd.Series[Any]) -> int | float:
    """Return the sum as a whole number where every clip counts whole."""
    total = float(stands.sum())
    return int(total) if bool(stands.isin([0, 1]).all()) else round(total, 6)


def _corruptions(results: Results, board: Board) -> list[dict[str, Any]]:
    budget, threat = board.headline.describe(), board.threat.name
    return [
        {
            "kind": kind,
            "correct": [
                int(results.verdicts(threat, results.attacks[row * SEVERITIES + s])[budget].sum())
                for s in range(SEVERITIES)
            ],
        }
        for row, kind in enumerate(board.corruptions)
    ]


def implausible(results: Results) -> list[str]:
    """Return what a journal says that cannot have been measured: contradictions within its rows."""
    classes = len(results.spec["model"]["classes"])
    faults = []
    for number, row in enumerate(results.rows, 1):
        where = f"line {number} ({row.sample}, {row.attack})"
        if not (0 <= row.label < classes and 0 <= row.clean < classes and 0 <= row.predicted < classes):
            faults.append(f"{where}: a class that is none of the {classes}")
        elif len(row.sample) > _LONGEST_NAME:
            faults.append(f"line {number}: a sample with a name of {len(row.sample):,} characters")
        elif row.robust != (row.predicted == row.label):
            faults.append(f"{where}: predicted {row.predicted} of label {row.label}, yet robust is {row.robust}")
        elif (row.margin > _TOLERANCE and not row.robust) or (row.margin < -_TOLERANCE and row.robust):
            faults.append(f"{where}: a margin of {row.margin:g}, yet robust is {row.robust}")
        elif row.size > 1 + _TOLERANCE:
            faults.append(f"{where}: {row.size:g} times the size of the budget")
        elif min(row.forwards, row.backwards, row.seconds, row.size, row.linf, row.l2_clip, row.l2_frame_max) < 0:
            faults.append(f"{where}: a negative count or size")
    return faults


def differences(stated: Any, computed: Any, where: str = "") -> list[str]:
    """Return where two JSON values differ, as ``path: stated, computed``."""
    if isinstance(stated, dict) and isinstance(computed, dict):
        keys = [*computed, *(key for key in stated if key not in computed)]
        return [one for key in keys for one in differences(stated.get(key), computed.get(key), f"{where}.{key}")]
    if isinstance(stated, list) and isinstance(computed, list) and len(stated) == len(computed):
        pairs = zip(stated, computed, strict=True)
        return [one for place, pair in enumerate(pairs) for one in differences(*pair, f"{where}[{place}]")]
    if type(stated) is type(computed) and stated == computed:
        return []
    return [f"{where.lstrip('.')} says {_short(stated)}, the evidence gives {_short(computed)}"]


def _cells(results: Results, threat: str, budgets: list[str]) -> list[dict[str, Any]]:
    curve, broken = results.curve(threat), results.broken_by(threat)
    return [
        {
            "budget": budget,
            "correct": int(curve.correct.iloc[cell + 1]),
            "broken_by": {attack: counts[cell] for attack, counts in broken.items() if counts[cell]},
        }
        for cell, budget in enumerate(budgets)
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
