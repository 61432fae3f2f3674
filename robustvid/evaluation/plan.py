"""The plan of a run, read back from its spec: which threats, which attacks, and what rows say of each clip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from robustvid.budget import Budget, parse_radius
from robustvid.contracts import ClipSpec
from robustvid.evaluation.journal import CLEAN, Row
from robustvid.evaluation.search import Hunt, Try
from robustvid.evaluation.threats import Sizes, Threat, cell_text, group_threats


class Pair(NamedTuple):
    """One threat met by one group of attacks; places in the plan."""

    threat: int
    group: int


class AttackName(NamedTuple):
    """An attack as a plan knows it; ``access`` is ``white-box``, ``score``, ``decision``, ``blind`` or unknown."""

    name: str
    key: str
    access: str = ""


@dataclass(frozen=True)
class Plan:
    """What a run measures.

    Attributes:
        threats: budgets to sweep.
        groups: attacks that meet clips in turn; a later attack of a group meets only what still stands.
        strategy: ``"bisect"`` or ``"every"``.
        clip: how clips are cut; sizes are held against it.
    """

    threats: tuple[Threat, ...]
    groups: tuple[tuple[AttackName, ...], ...]
    strategy: str
    clip: ClipSpec

    def pairs(self) -> list[Pair]:
        """Return every threat with every group, in the order in which a sweep takes them."""
        return [Pair(t, g) for t in range(len(self.threats)) for g in range(len(self.groups))]

    def hunts(
        self, rows: Iterable[Row], criticals: Mapping[Pair, Sequence[int]] = MappingProxyType({})
    ) -> dict[Pair, Hunt]:
        """Return what the rows of one clip say, for each threat and group; ``criticals`` as :class:`Hunt` has it."""
        hunts = {
            pair: Hunt(self.threats[pair.threat], len(self.groups[pair.group]), self.strategy, criticals.get(pair, ()))
            for pair in self.pairs()
        }
        for row in rows:
            if row.attack != CLEAN and (place := self.place(row)) is not None:
                pair, attempt = place
                self.record(hunts[pair], pair, attempt, row)
        return hunts

    def place(self, row: Row) -> tuple[Pair, Try] | None:
        """Return where a row belongs; None where it is of no attack or budget of this plan."""
        return self._places.get(_address(row))

    def record(self, hunt: Hunt, pair: Pair, attempt: Try, row: Row) -> None:
        """Note one measurement in a hunt."""
        height, width = self.clip.size
        sizes = Sizes(row.linf, row.l2_frame_max, row.l2_clip, row.frames_touched)
        fits = self.threats[pair.threat].holds(sizes, 3 * height * width, self.clip.length)
        hunt.record(attempt, robust=row.robust, fits=fits)

    @cached_property
    def _places(self) -> dict[tuple[Any, ...], tuple[Pair, Try]]:
        return {
            (attack.key, budget.norm, *cell_text(budget).values()): (pair, Try(number, cell))
            for pair in self.pairs()
            for number, attack in enumerate(self.groups[pair.group])
            for cell, budget in enumerate(self.threats[pair.threat].budgets)
        }


def read_plan(spec: Mapping[str, Any]) -> Plan:
    """Return the plan that a spec records.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it records none.
    """
    budgets = [read_budget(table) for table in spec["budgets"]]
    groups = tuple(tuple(map(_read_name, group)) for group in spec["attacks"])
    if not groups or not all(groups):
        raise ValueError("a group without attacks")
    return Plan(
        tuple(group_threats(budgets)),
        groups,
        spec["strategy"],
        ClipSpec.read(spec["model"]["clip"]),
    )


def _read_name(table: Mapping[str, Any]) -> AttackName:
    name = AttackName(table["name"], table["key"], table.get("access", ""))
    if not all(isinstance(text, str) for text in name):
        raise TypeError(f"{tuple(name)} names no attack")
    return name


def read_budget(table: Mapping[str, Any]) -> Budget:
    """Return the budget that :func:`cell_text` wrote, with its norm."""
    frame, clip = (None if table[key] is None else parse_radius(table[key]) for key in ("eps_frame", "eps_clip"))
    return Budget(table["norm"], frame, clip, table["frames"])


def by_clip(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Return rows by the clip's place in the dataset, in order of measurement."""
    clips: dict[int, list[Row]] = {}
    for row in rows:
        clips.setdefault(row.index, []).append(row)
    return clips


def clean_row(rows: Sequence[Row]) -> Row | None:
    """Return the measurement without an attack, if there is one yet."""
    return next((row for row in rows if row.attack == CLEAN), None)


def _address(row: Row) -> tuple[Any, ...]:
    return row.card_key, row.norm, row.eps_frame, row.eps_clip, row.frames
