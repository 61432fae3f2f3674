"""Which budget to try next on a clip: the search for its critical radius, one clip at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from robustvid.errors import RobustvidError
from robustvid.evaluation.threats import Threat
from robustvid.registry import did_you_mean

STRATEGIES = ("bisect", "every")
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def check_strategy(name: str) -> None:
    """Refuse a strategy that does not exist.

    Raises:
        RobustvidError: lists what there is.
    """
    if name not in STRATEGIES:
        raise RobustvidError(
            f"no strategy named {name!r}.{did_you_mean(name, STRATEGIES)} There are: {', '.join(STRATEGIES)}."
        )


class Try(NamedTuple):
    """One measurement to make: the attack's place in the sequence and the budget's place in the threat."""

    attack: int
    cell: int


class Hunt:
    """What is known of one clip under one threat and a sequence of attacks.

    Broken cells are facts: an adversarial clip was measured that fits into them. Cells where an attack failed are
    facts under ``every``; under ``bisect`` a failure is taken to hold for every smaller budget too, the assumption
    that makes a whole curve cheap.

    Attributes:
        broken_by: ``(K,)`` place of the first attack that broke the clip in each budget, -1 while it stands.
    """

    def __init__(self, threat: Threat, attacks: int, strategy: str) -> None:
        self.threat, self.attacks, self.strategy = threat, attacks, strategy
        self.broken_by = np.full(len(threat.budgets), -1)
        self._failed: Mask = np.zeros((attacks, len(threat.budgets)), dtype=bool)
        self._has_broken = np.zeros(attacks, dtype=bool)

    def next(self) -> Try | None:
        """Return what to measure next, or None when every attack has had its say."""
        for attack in range(self.attacks):
            open_cells = (self.broken_by < 0) & ~self._failed[attack]
            if open_cells.any():
                return Try(attack, self._pick(attack, open_cells))
        return None

    @property
    def done(self) -> float:
        """Return the share of (attack, budget) pairs that are decided."""
        return float(np.mean((self.broken_by >= 0) | self._failed))

    def record(self, attempt: Try, *, robust: bool, fits: Mask) -> None:
        """Note a measurement; ``fits`` says which budgets hold the perturbation that was found."""
        attack, cell = attempt
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
        among = self.threat.inside[np.ix_(cells, cells)]
        return int(cells[np.minimum(among.sum(0), among.sum(1)).argmax()])
