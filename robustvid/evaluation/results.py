"""Results: everything a run folder says, read from its spec and journal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustvid.budget import Budget
from robustvid.errors import RunError, UnknownNameError
from robustvid.evaluation.audit import audit_results, audit_skipping
from robustvid.evaluation.evidence import Evidence, read_clips
from robustvid.evaluation.journal import Row, read_rows
from robustvid.evaluation.machine import read_environment
from robustvid.evaluation.plan import Pair, Plan, by_clip, clean_row, read_plan
from robustvid.evaluation.search import Hunt
from robustvid.evaluation.spec import read_spec, spec_key
from robustvid.evaluation.threats import Threat, cell_text
from robustvid.registry import did_you_mean

WORST = "worst"
ROWS = "rows.jsonl"
SURVIVAL = "survival.json"  # see survival.survival
LEFT_OUT = "left_out.json"  # videos that could not be read, see Results.left_out
AUDIT = "audit.jsonl"  # rows of what the search had skipped, see Results.audit
_CURVE_COLUMNS = ["threat", "attack", "eps_frame", "eps_clip", "frames", "n", "correct", "acc", "lo", "hi"]
_Z95 = 1.959963984540054


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a proportion; (0, 1) when nothing was counted.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).

    Example:
        >>> [round(bound, 3) for bound in wilson(8, 10)]
        [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    z2, share = _Z95**2, correct / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At 0 and n the bounds are exactly 0 and 1; rounding would leave 1e-17 on the wrong side.
    return (0.0 if correct == 0 else centre - half, 1.0 if correct == n else centre + half)


class Results:
    """A run, complete or not, as its folder tells it.

    Args:
        folder: the run folder.

    Raises:
        RunError: the folder is not a run, or its journal is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.spec: dict[str, Any] = read_spec(self.folder, kind="attack")
        try:
            self.plan: Plan = read_plan(self.spec)
            self._chance = 1 / len(self.spec["model"]["classes"])
            self._wanted = int(self.spec["data"]["clips"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as error:
            raise RunError(f"{self.folder / 'spec.json'} is damaged: {error!r}") from None
        self.rows: list[Row] = list(read_rows(self.folder / ROWS))

    @property
    def key(self) -> str:
        """Return the hash of the spec that the folder is named after."""
        return spec_key(self.spec)

    @property
    def surrogate(self) -> str | None:
        """Return the name of the model that was attacked in place of the measured one, if there was one."""
        surrogate = self.spec.get("surrogate")
        return None if surrogate is None else str(surrogate["name"])

    @property
    def subject(self) -> str:
        """Return what was measured, in words: the model, and what it was attacked through."""
        model = str(self.spec["model"]["name"])
        return model if self.surrogate is None else f"{model} attacked through {self.surrogate}"

    @property
    def threats(self) -> list[str]:
        """Return the names of the threats, in the order of the budgets given."""
        return [threat.name for threat in self.plan.threats]

    @property
    def attacks(self) -> list[str]:
        """Return the names of the attacks, in the order in which they run."""
        return [attack.name for group in self.plan.groups for attack in group]

    @property
    def n(self) -> int:
        """Return how many clips have been measured without an attack."""
        return len(self._clips)

    @property
    def complete(self) -> bool:
        """Return whether every clip of the spec has met every attack, or cannot be read."""
        wanted = self._wanted - len(self.left_out)
        return all(len(self._judged(number)) == wanted for number in range(len(self.threats)))

    @cached_property
    def left_out(self) -> list[dict[str, str]]:
        """Return the videos that could not be read, ``file`` and ``reason``: no number counts them.

        Raises:
            RunError: the list is damaged.
        """
        return _read_list(self.folder / LEFT_OUT, ("file", "reason"))

    @property
    def survival(self) -> list[dict[str, Any]]:
        """Return which kept clips stay adversarial when stored or scaled, as :func:`survival.survival` counts it.

        Raises:
            RunError: the file is damaged.
        """
        path = self.folder / SURVIVAL
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
            counts = ("still", "right")
            return [
                {
                    "threat": str(one["threat"]),
                    "n": int(one["n"]),
                    "treatments": [
                        {"name": str(each["name"])} | {count: int(each[count]) for count in counts}
                        for each in one["treatments"]
                    ],
                }
                for one in found
            ]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(_damaged(path, error)) from None

    @property
    def clean(self) -> dict[str, Any]:
        """Return ``correct, acc, lo, hi`` without an attack."""
        return _share(sum(row.robust for row in map(clean_row, self._clips.values()) if row), self.n)

    def frame(self) -> pd.DataFrame:
        """Return one line a measurement, with the columns of :class:`~robustvid.evaluation.journal.Row`."""
        return pd.DataFrame([vars(row) for row in self.rows], columns=[field.name for field in fields(Row)])

    def curve(self, threat: str | None = None, attack: str | None = None) -> pd.DataFrame:
        """Return robust accuracy against the budget, with 95 % Wilson intervals.

        A clip counts as correct where the model is right on the clean clip and no attack broke it in this budget or
        in a smaller one. The first line of each threat, radius 0, is the clean accuracy on the same clips.

        Args:
            threat: a name such as ``"linf-frame"``; all of them when None.
            attack: a name such as ``"pgd"``; the worst case over all attacks when None or ``"worst"``. In a battery,
                attacks meet only what stands, and the curve is that of the attack and those before it.

        Returns:
            Columns ``threat, attack, eps_frame, eps_clip, frames, n, correct, acc, lo, hi``; radii as written.

        Raises:
            UnknownNameError: no such threat or attack in this run.
        """
        chosen = range(len(self.threats)) if threat is None else [self._find(threat, self.threats, "threat")]
        lines = [line for number in chosen for line in self._points(number, attack or WORST)]
        types = {"n": int, "correct": int, "acc": float, "lo": float, "hi": float}
        return pd.DataFrame(lines, columns=_CURVE_COLUMNS, dtype=object).astype(types)

    def verdicts(self, threat: str, attack: str | None = None) -> pd.DataFrame:
        """Return what became of every finished clip of a threat, in the order of measurement.

        Args:
            threat: a name such as ``"linf-frame"``.
            attack: see :meth:`curve`.

        Returns:
            Columns ``sample``, ``digest`` of its pixels, ``label``, ``clean`` (right without an attack), and for every
            budget in words whether the clip stands.

        Raises:
            UnknownNameError: no such threat or attack in this run.
        """
        number = self._find(threat, self.threats, "threat")
        budgets = [budget.describe() for budget in self.plan.threats[number].budgets]
        standing, fallen = iter(self._standing(number, attack or WORST).tolist()), [False] * len(budgets)
        lines = []
        for rows, hunts in zip(self._clips.values(), self._judged_or_wrong[number], strict=False):
            about = (rows[0].sample, rows[0].digest, rows[0].label, hunts is not None)
            lines.append([*about, *(fallen if hunts is None else next(standing))])
        return pd.DataFrame(lines, columns=["sample", "digest", "label", "clean", *budgets])

    def table(self) -> pd.DataFrame:
        """Return the worst case over all attacks for every budget, in words and per cent."""
        lines = [
            {"threat": threat.name, "budget": budget.describe() if budget else "clean"} | _per_cent(point)
            for number, threat in enumerate(self.plan.threats)
            for budget, point in zip((None, *threat.budgets), self._points(number, WORST), strict=True)
        ]
        return pd.DataFrame(lines)

    @property
    def flags(self) -> list[dict[str, str]]:
        """Return the reasons for doubt: ``flag``, explained in docs/flags.md, and ``detail``."""
        found = _read_list(self.folder / "model_flags.json", ("flag", "detail")) + audit_skipping(self.audit)
        if self.surrogate:  # which attack transfers better than which says nothing of the model's gradient
            return found + (audit_results(self.clean, self._chance, {}, {}) if self.n else [])
        alone = [group[0].name for group in self.plan.groups if len(group) == 1]
        broken = {
            threat.name: {
                name: [point["n"] - point["correct"] for point in self._points(number, name)] for name in alone
            }
            for number, threat in enumerate(self.plan.threats)
        }
        unseen = {threat.name: self._unseen(number) for number, threat in enumerate(self.plan.threats)}
        return found + (audit_results(self.clean, self._chance, broken, unseen) if self.n else [])

    @cached_property
    def audit(self) -> dict[str, Any]:
        """Return what trying again what the search had skipped has shown.

        ``skipped`` measurements, attacks and radii counted one by one; ``checked`` of them, drawn at random; in
        ``wrong`` the attack broke the clip though it had failed in a larger budget; ``rate, lo, hi`` with a 95 % Wilson
        interval.
        """
        skipped = {
            (index, pair, attempt)
            for index, hunts in zip(self._clips, self._hunts, strict=True)
            for pair, hunt in (hunts or {}).items()
            for attempt in hunt.skipped
        }
        rows = {}
        for row in read_rows(self.folder / AUDIT):
            place = self.plan.place(row)
            if place is not None and (row.index, *place) in skipped:
                rows[row.index, *place] = row
        wrong = sum(not row.robust for row in rows.values())
        share = _share(wrong, len(rows))
        found = {"skipped": len(skipped), "checked": len(rows), "wrong": wrong}
        return found | {"rate": share["acc"], "lo": share["lo"], "hi": share["hi"]}

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Return what was noted of the machine and the command; empty when nothing was.

        Raises:
            RunError: the note is damaged.
        """
        return read_environment(self.folder / "environment.json")

    @property
    def cost(self) -> dict[str, float]:
        """Return ``forwards`` and ``backwards`` in clips and ``seconds``, summed over all measurements."""
        forwards, backwards = (sum(getattr(row, name) for row in self.rows) for name in ("forwards", "backwards"))
        return {
            "forwards": round(forwards),
            "backwards": round(backwards),
            "seconds": round(sum(row.seconds for row in self.rows), 3),
        }

    def summary(self) -> dict[str, Any]:
        """Return the run as one JSON object, the one that ``robustvid attack --json`` prints."""
        drop = ["threat", "attack"]
        curves = [
            {"threat": threat, "attack": name, "points": _records(self.curve(threat, name).drop(columns=drop))}
            for threat in self.threats
            for name in [*self.attacks, WORST]
        ]
        return {
            "run": str(self.folder),
            "model": self.spec["model"]["name"],
            "surrogate": self.surrogate,
            "data": self.spec["data"]["name"],
            "n": self.n,
            "left_out": self.left_out,
            "survival": self.survival,
            "complete": self.complete,
            "clean": self.clean,
            "curves": curves,
            "flags": self.flags,
            "audit": self.audit,
            "cost": self.cost,
        }

    def clips(self) -> Iterator[Evidence]:
        """Yield the attacked clips that were kept for the report."""
        return read_clips(self.folder / "clips")

    def broken_by(self, threat: str) -> dict[str, list[int]]:
        """Return for each attack how many clips it was the first to break, at each budget of the threat."""
        number = self._find(threat, self.threats, "threat")
        table = self._broken_by[number]
        return {
            attack.name: (table[:, place] == turn).sum(0).tolist()
            for place, group in enumerate(self.plan.groups)
            for turn, attack in enumerate(group)
        }

    @cached_property
    def _clips(self) -> dict[int, list[Row]]:
        return by_clip(self.rows)

    @cached_property
    def _hunts(self) -> list[dict[Pair, Hunt] | None]:
        """Return what is known of each clip in the order of measurement; None where the clean clip is wrong."""
        cleans = {index: clean_row(rows) for index, rows in self._clips.items()}
        return [
            self.plan.hunts(rows) if (clean := cleans[index]) is not None and clean.robust else None
            for index, rows in self._clips.items()
        ]

    def _finished(self, threat: int) -> list[dict[Pair, Hunt] | None]:
        """Return the clips up to the first unfinished one.

        In a run that was stopped, wrong clips of the last wave are finished before right ones; counting only what
        comes before the first unfinished clip keeps the sample fair.
        """
        finished: list[dict[Pair, Hunt] | None] = []
        for hunts in self._hunts:
            own = None if hunts is None else {pair: hunt for pair, hunt in hunts.items() if pair.threat == threat}
            if own is not None and any(hunt.next() is not None for hunt in own.values()):
                break
            finished.append(own)
        return finished

    def _points(self, threat: int, attack: str) -> list[dict[str, Any]]:
        subject = self.plan.threats[threat]
        finished = self._judged_or_wrong[threat]
        standing = self._standing(threat, attack)
        name = {"threat": subject.name, "attack": attack}
        return [
            name | _zero(subject) | {"n": len(finished)} | _share(len(standing), len(finished)),
            *(
                name | cell_text(budget) | {"n": len(finished)} | _share(int(standing[:, cell].sum()), len(finished))
                for cell, budget in enumerate(subject.budgets)
            ),
        ]

    def _standing(self, threat: int, attack: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return ``(right clips, budgets)``: whether neither the attack nor one before it in its group broke it."""
        broken, limits = self._broken_by[threat], np.array(self._limits(attack))[:, None]
        return np.asarray(~((broken >= 0) & (broken <= limits)).any(1))

    @cached_property
    def _broken_by(self) -> list[np.ndarray[Any, np.dtype[np.int_]]]:
        """Return for each threat ``(right clips, groups, budgets)``: which attack of the group broke it, or -1."""
        tables = []
        for number, threat in enumerate(self.plan.threats):
            right = [hunts for hunts in self._judged_or_wrong[number] if hunts is not None]
            table = np.full((len(right), len(self.plan.groups), len(threat.budgets)), -1)
            for place, hunts in enumerate(right):
                for pair, hunt in hunts.items():
                    table[place, pair.group] = hunt.broken_by
            tables.append(table)
        return tables

    @cached_property
    def _judged_or_wrong(self) -> list[list[dict[Pair, Hunt] | None]]:
        return [self._finished(threat) for threat in range(len(self.threats))]

    def _judged(self, threat: int) -> list[dict[Pair, Hunt]]:
        return [hunts or {} for hunts in self._judged_or_wrong[threat]]

    def _unseen(self, threat: int) -> list[tuple[int, int]]:
        """Return for each budget how many clips fell to attacks without gradients alone, and of how many.

        Without an attack that has gradients there is nothing to compare.
        """
        access = [[attack.access for attack in group] for group in self.plan.groups]
        if all(kind != "white-box" for kinds in access for kind in kinds):
            return []
        table, n = self._broken_by[threat], len(self._judged_or_wrong[threat])
        broken = table >= 0
        with_gradient = np.zeros_like(broken)
        for place, kinds in enumerate(access):
            free = [turn for turn, kind in enumerate(kinds) if kind in {"score", "decision"}]
            with_gradient[:, place] = broken[:, place] & ~np.isin(table[:, place], free)
        counts = (broken.any(1) & ~with_gradient.any(1)).sum(0)
        return [(count, n) for count in counts.tolist()]

    def _limits(self, attack: str) -> list[int]:
        """Return for each group the last attack that counts; -1 where none does."""
        if attack == WORST:
            return [len(group) for group in self.plan.groups]
        self._find(attack, self.attacks, "attack")
        places = [[entry.name for entry in group] for group in self.plan.groups]
        return [names.index(attack) if attack in names else -1 for names in places]

    def _find(self, name: str, known: Sequence[str], noun: str) -> int:
        if name not in known:
            raise UnknownNameError(
                f"no {noun} {name!r} in {self.folder}.{did_you_mean(name, known)} There are: {', '.join(known)}."
            )
        return list(known).index(name)


def _read_list(path: Path, keys: tuple[str, str]) -> list[dict[str, str]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        return [{key: str(entry[key]) for key in keys} for entry in found]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(_damaged(path, error)) from None


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({error!r}); run the same attack again to have it written anew"


def _share(correct: int, n: int) -> dict[str, Any]:
    lo, hi = wilson(correct, n)
    return {"correct": correct, "acc": correct / n if n else 0.0, "lo": lo, "hi": hi}


def _zero(threat: Threat) -> dict[str, Any]:
    first: Budget = threat.budgets[0]
    return {
        "eps_frame": None if first.frame is None else "0",
        "eps_clip": None if first.clip is None else "0",
        "frames": None,
    }


def _per_cent(point: dict[str, Any]) -> dict[str, Any]:
    shares = {name: round(100 * point[name], 1) for name in ("acc", "lo", "hi")}
    return {"n": point["n"], "correct": point["correct"]} | shares


def _records(curve: pd.DataFrame) -> list[dict[str, Any]]:
    """Return plain Python values, one dictionary a point."""
    return [{str(name): value for name, value in record.items()} for record in curve.to_dict("records")]
