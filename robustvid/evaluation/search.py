"""Which budget to try next on a clip: the search for its critical radius, one clip at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from robustvid.evaluation.threats import Threat

STRATEGIES = ("bisect", "every")
Mask = np.ndarray[Any, np.dtype[np.bool_]]
_SUCCESS = 0.5  # what an attack that breaks a clip costs, beside one that spends all its steps in vain


class Try(NamedTuple):
    """One measurement to make: the attack's place in the sequence and the budget's place in the threat."""

    attack: int
    cell: int


class Hunt:
    """What is known of one clip under one threat and a sequence of attacks.

    Broken cells are facts: an adversarial clip was measured that fits into them. Cells where an attack failed are
    facts under ``every``; under ``bisect`` a failure is taken to hold for every smaller budget too, the assumption
    that makes a whole curve cheap.

    Args:
        threat: the budgets.
        attacks: how many there are.
        strategy: ``"bisect"`` or ``"every"``.
        criticals: how often, on earlier clips, each budget was the smallest that the first attack broke; the last
            number is of clips that it never broke. Decides the order of the search, not what it finds.

    Attributes:
        broken_by: ``(K,)`` place of the first attack that broke the clip in each budget, -1 while it stands.
    """

    def __init__(self, threat: Threat, attacks: int, strategy: str, criticals: Sequence[int] = ()) -> None:
        self.threat, self.attacks, self.strategy = threat, attacks, strategy
        # Half a clip for each outcome: what was not seen yet is not impossible.
        self._weights = [0.5 + count for count in criticals or [0] * (len(threat.budgets) + 1)]
        self.broken_by = np.full(len(threat.budgets), -1)
        self._failed: Mask = np.zeros((attacks, len(threat.budgets)), dtype=bool)
        self._measured = self._failed.copy()
        self._has_broken = np.zeros(attacks, dtype=bool)

    def next(self) -> Try | None:
        """Return what to measure next, or None when every attack has had its say."""
        for attack in range(self.attacks):
            open_cells = (self.broken_by < 0) & ~self._failed[attack]
            if open_cells.any():
                return Try(attack, self._pick(attack, open_cells))
        return None

    @property
    def skipped(self) -> list[Try]:
        """Return what was never tried, because the attack failed in a larger budget."""
        implied = self._failed & ~self._measured & (self.broken_by < 0)
        return [Try(int(attack), int(cell)) for attack, cell in np.argwhere(implied)]

    @property
    def critical(self) -> int:
        """Return the place of the smallest budget in which the first attack broke the clip; K where it never did.

        Only where the budgets are one ladder, each inside the next.
        """
        return int(self._failed[0].sum())

    @property
    def done(self) -> float:
        """Return the share of (attack, budget) pairs that are decided."""
        return float(np.mean((self.broken_by >= 0) | self._failed))

    def record(self, attempt: Try, *, robust: bool, fits: Mask) -> None:
        """Note a measurement; ``fits`` says which budgets hold the perturbation that was found."""
        attack, cell = attempt
        self._measured[attack, cell] = True
        inside = self.threat.inside
        if robust:
            self._failed[attack] |= inside[:, cell] if self.strategy == "bisect" else np.arange(len(fits)) == cell
            return
        fallen = (fits | inside[cell]) & (self.broken_by < 0)
        self.broken_by[fallen] = attack
        self._has_broken[attack] = True

    def _pick(self, attack: int, open_cells: Mask) -> int:
        cells = np.flatnonzero(open_cells)
        if self.strategy == "every":
            return int(cells[0])
        # A later attack can change the answer only where the clip still stands: try the largest such budget first.
        if attack > 0 and not self._has_broken[attack]:
            return int(cells[-1])
        if self.threat.is_ladder:
            return int(cells[_split(tuple(self._weights[cells[0] : cells[-1] + 2]))[0]])
        among = self.threat.inside[np.ix_(cells, cells)]
        return int(cells[np.minimum(among.sum(0), among.sum(1)).argmax()])


@lru_cache(maxsize=2**14)
def _split(weights: tuple[float, ...]) -> tuple[int, float]:
    """Return which cell to try next, and what the search will cost from here, in attacks that fail.

    The optimal search tree for costs that differ: ``weights[i]`` is how likely cell i is the critical one, the last how
    likely none is.
    """
    if len(weights) == 1:
        return 0, 0.0
    costs = []
    for cell in range(len(weights) - 1):
        success, failure = weights[: cell + 1], weights[cell + 1 :]
        spent = sum(success) * (_SUCCESS + _split(success)[1]) + sum(failure) * (1 + _split(failure)[1])
        costs.append(spent / sum(weights))
    cheapest = min(range(len(costs)), key=costs.__getitem__)
    return cheapest, costs[cheapest]
