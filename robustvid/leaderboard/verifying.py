"""Verification: some clips of an entry are attacked again from the weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from robustvid.contracts import ClipSpec, Sample, VideoDataset
from robustvid.errors import LeaderboardError
from robustvid.evaluation.sweep import evaluate
from robustvid.evaluation.waves import Progress
from robustvid.leaderboard.boards import Board
from robustvid.leaderboard.checking import check_entry
from robustvid.leaderboard.entries import Entry
from robustvid.leaderboard.numbers import count, headline
from robustvid.leaderboard.ranking import interval
from robustvid.models.classifier import VideoClassifier, weights_digest


class Verdict(NamedTuple):
    """What attacking again has shown, at one budget.

    Attributes:
        budget: in words.
        n: clips.
        stated: how many of them stand by the entry's evidence; with corruptions, the sum of their shares.
        found: how many stand now.
        lo: lower bound of the 95 % interval of what was stated, in clips.
        hi: upper bound.
        differing: clips whose verdict is another.
    """

    budget: str
    n: int
    stated: int | float
    found: int | float
    lo: float
    hi: float
    differing: int

    @property
    def agrees(self) -> bool:
        """Return whether what was found lies in the interval of what was stated."""
        return self.lo <= self.found <= self.hi


class Chosen:
    """Some videos of a dataset, under their own ids.

    Args:
        data: the dataset.
        places: which of its videos.
    """

    def __init__(self, data: VideoDataset, places: Sequence[int]) -> None:
        self.name, self.split, self.classes = data.name, data.split, data.classes
        self._data, self._places = data, list(places)

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self._places)

    def sample(self, index: int, clip: ClipSpec) -> Sample:
        """Return a clip of the video at this place of the choice."""
        return self._data.sample(self._places[index], clip)


def verify(
    entry: Entry,
    board: Board,
    model: VideoClassifier,
    data: VideoDataset,
    out: Path,
    *,
    clips: int = 40,
    seed: int = 1,
    device: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[Verdict]:
    """Attack a random part of an entry's clips again, with another seed, and return what came out at each budget.

    Args:
        entry: whose numbers are doubted.
        board: it stands on.
        model: with the weights of the entry.
        data: the board's.
        out: run folder of the new attack.
        clips: how many.
        seed: of the choice and of the attack; another one than the board's, so that luck is drawn anew.
        device: where to run.
        progress: called after every batch.

    Raises:
        LeaderboardError: the entry is not sound, the weights are others, or the data are.
    """
    if faults := check_entry(entry, board):
        raise LeaderboardError(f"{entry.id} is not sound, and attacking again would prove nothing: {'; '.join(faults)}")
    if weights_digest(model) != entry.facts["weights_sha256"]:
        raise LeaderboardError(
            f"these weights are not those of {entry.id}: their SHA-256 is {weights_digest(model)}, "
            f"the entry's {entry.facts['weights_sha256']}"
        )
    places = _choose(entry, data, model.card.clip, clips, seed)
    results = evaluate(
        model,
        Chosen(data, places),
        board.load_attacks(),
        board.budgets,
        out=out,
        device=device,
        seed=seed,
        strategy=board.strategy,
        precision=board.precision,
        audit=0,
        progress=progress,
    )
    if board.corruptions:
        now, then = (headline(run, board).set_index("sample") for run in (results, entry.results))
        return [_compare("clean", now["clean"], then["clean"]), _compare(board.question, now["stands"], then["stands"])]
    found = []
    for threat in results.plan.threats:
        now, then = (run.verdicts(threat.name).set_index("sample") for run in (results, entry.results))
        names = ["clean", *(budget.describe() for budget in threat.budgets)]
        found += [_compare(name, now[name], then[name]) for name in names]
    return list(dict.fromkeys(found))


def earned(entry: Entry, verdicts: Sequence[Verdict]) -> str:
    """Return the status that attacking again has earned: ``"verified"`` takes every clip of the entry."""
    if not all(verdict.agrees for verdict in verdicts):
        return "flagged"
    return "verified" if verdicts[0].n == entry.facts["numbers"]["n"] else "reproduced"


def _compare(label: str, now: pd.Series[Any], then: pd.Series[Any]) -> Verdict:
    then = then.loc[now.index]
    lo, hi = interval(then)
    return Verdict(label, len(now), count(then), count(now), lo * len(now), hi * len(now), int((now != then).sum()))


def _choose(entry: Entry, data: VideoDataset, clip: ClipSpec, clips: int, seed: int) -> list[int]:
    indexes = {row.index: row.sample for row in entry.results.rows}
    chosen = random.Random(seed).sample(sorted(indexes), min(clips, len(indexes)))
    first = min(chosen)
    if max(chosen) >= len(data) or data.sample(first, clip).id != indexes[first]:
        raise LeaderboardError(f"{data.name} is not the dataset of {entry.id}: video {first} is not {indexes[first]!r}")
    return chosen
