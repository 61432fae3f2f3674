"""Ranks: who stands better is decided clip by clip, and who cannot be told apart shares a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from robustvid.evaluation.results import wilson
from robustvid.leaderboard.boards import Board
from robustvid.leaderboard.entries import Entry

LEVEL = 0.05


@dataclass(frozen=True)
class Place:
    """A model's row on a board.

    Attributes:
        entry: its own entry.
        lowered_by: evaluations by others that broke more clips at the headline.
        rank: 1 and the number of models that are better by the paired test.
        n: clips.
        correct: clips that stand at the headline under every evaluation.
        lo: lower bound of a 95 % Wilson interval of the share.
        hi: upper bound.
    """

    entry: Entry
    lowered_by: tuple[Entry, ...]
    rank: int
    n: int
    correct: int
    lo: float
    hi: float

    @property
    def status(self) -> str:
        """Return the entry's status; ``"flagged"`` where another's evaluation went below its interval."""
        own = self.entry.facts["numbers"]["headline"]["correct"]
        lo, _ = wilson(own, self.n)
        return "flagged" if self.correct < lo * self.n else self.entry.status


def places(board: Board, entries: Sequence[Entry]) -> list[Place]:
    """Return the rows of a board, best first.

    A clip stands for a model where it stands in every evaluation of the model. Two models are compared on the clips on
    which they differ (McNemar's test, exact, two-sided, at 5 %).

    Args:
        board: whose headline orders the rows.
        entries: sound ones, evaluations of others' models among them.
    """
    own = [entry for entry in entries if entry.of is None]
    verdicts = {entry.id: _headline(entry, board) for entry in entries}
    joined: dict[str, pd.Series[Any]] = {}
    lowered: dict[str, tuple[Entry, ...]] = {}
    for entry in own:
        others = [other for other in entries if other.of == entry.id]
        standing = verdicts[entry.id]
        lowered[entry.id] = tuple(
            other for other in others if bool((standing & ~verdicts[other.id].reindex(standing.index)).any())
        )
        for other in others:
            standing &= verdicts[other.id].reindex(standing.index)
        joined[entry.id] = standing
    better = _better([joined[entry.id] for entry in own])
    found = []
    for entry, count in zip(own, better, strict=True):
        standing = joined[entry.id]
        n, correct = len(standing), int(standing.sum())
        found.append(Place(entry, lowered[entry.id], 1 + count, n, correct, *wilson(correct, n)))
    return sorted(found, key=lambda place: (place.rank, -place.correct / place.n, place.entry.id))


def _headline(entry: Entry, board: Board) -> pd.Series[Any]:
    verdicts = entry.results.verdicts(board.threat.name).set_index("sample")
    return verdicts[board.headline.describe()].copy()


def _better(standing: Sequence[pd.Series[Any]]) -> list[int]:
    """Return for each model how many others stand on more clips, by more than chance, on the clips they share."""
    table = pd.concat(list(standing), axis=1).to_numpy(dtype=float) if standing else np.empty((0, 0))
    up, down = (table == 1).astype(int), (table == 0).astype(int)  # a clip that one was not measured on is neither
    won = up.T @ down
    return [
        sum(_differ(int(theirs), int(ours)) for theirs, ours in zip(won[:, i], won[i], strict=True))
        for i in range(len(won))
    ]


@cache
def _differ(won: int, lost: int) -> bool:
    from scipy.stats import binomtest

    return won > lost and float(binomtest(won, won + lost).pvalue) < LEVEL
