"""Ranks: who stands better is decided clip by clip, and a rank counts who stands better."""

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
from robustvid.leaderboard.numbers import count, headline

LEVEL = 0.05
_DRAWS = 2000
_Shares = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Place:
    """A model's row on a board.

    Attributes:
        entry: its own entry.
        lowered_by: evaluations by others that broke more clips at the headline.
        rank: 1 and the number of models that are better by the paired test.
        n: clips.
        correct: clips that stand at the headline under every evaluation; with corruptions, the sum of their shares.
        lo: lower bound of a 95 % interval of the share: Wilson's; for means over corruptions by bootstrap over clips.
        hi: upper bound.
    """

    entry: Entry
    lowered_by: tuple[Entry, ...]
    rank: int
    n: int
    correct: int | float
    lo: float
    hi: float

    @property
    def status(self) -> str:
        """Return the entry's status; ``"flagged"`` where another's evaluation went below its interval."""
        if not self.lowered_by:
            return self.entry.status
        lo, _ = wilson(round(self.entry.facts["numbers"]["headline"]["correct"]), self.n)
        return "flagged" if self.correct < lo * self.n else self.entry.status


def places(board: Board, entries: Sequence[Entry]) -> list[Place]:
    """Return the rows of a board, best first.

    A clip stands for a model where it stands in every evaluation of the model. Two models are compared on the clips on
    which they differ, at 5 %, two-sided: by McNemar's exact test, or, where clips count by shares, by a paired t-test.

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
        lowered[entry.id] = tuple(other for other in others if bool((verdicts[other.id] < standing).any()))
        joined[entry.id] = pd.concat([standing, *(verdicts[other.id] for other in others)], axis=1).min(axis=1)
    better = _better([joined[entry.id] for entry in own])
    found = []
    for entry, above in zip(own, better, strict=True):
        standing = joined[entry.id]
        found.append(Place(entry, lowered[entry.id], 1 + above, len(standing), count(standing), *interval(standing)))
    return sorted(found, key=lambda place: (place.rank, -place.correct / place.n, place.entry.id))


def _headline(entry: Entry, board: Board) -> pd.Series[Any]:
    return headline(entry.results, board).set_index("sample")["stands"].sort_index()


def interval(standing: pd.Series[Any]) -> tuple[float, float]:
    """Return a 95 % interval of the mean: Wilson's where clips stand or fall, for shares by bootstrap over clips."""
    values = standing.to_numpy(dtype=float)
    if np.isin(values, (0, 1)).all():
        return wilson(int(values.sum()), len(values))
    drawn = np.random.default_rng(0).choice(values, (_DRAWS, len(values))).mean(1)
    lo, hi = np.quantile(drawn, (0.025, 0.975))
    return float(lo), float(hi)


def _better(standing: Sequence[pd.Series[Any]]) -> list[int]:
    """Return for each model how many others stand on more of the clips they share, by more than chance."""
    if not standing:
        return []
    columns = pd.concat(list(standing), axis=1).to_numpy(dtype=float).T  # NaN where one was not measured on a clip
    return [sum(_beats(theirs, ours) for theirs in columns) for ours in columns]


def _beats(ours: _Shares, theirs: _Shares) -> bool:
    """Return whether the mean of ``ours`` is larger by a paired test: McNemar's, or, for shares of clips, Student's."""
    from scipy.stats import ttest_1samp

    gain = ours - theirs
    gain = gain[np.isfinite(gain)]
    if not gain.sum() > 0:
        return False
    if np.isin(gain, (-1, 0, 1)).all():
        return _mcnemar(int((gain > 0).sum()), int((gain < 0).sum())) < LEVEL
    return float(ttest_1samp(gain, 0).pvalue) < LEVEL


@cache
def _mcnemar(won: int, lost: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(won, won + lost).pvalue)
