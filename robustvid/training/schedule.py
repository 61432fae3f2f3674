"""How the radius changes while training goes on: factors that all radii are multiplied by."""

from __future__ import annotations

import random
from collections.abc import Sequence

GRID = tuple(place / 9 for place in range(10))  # the radii that the adaptive schedule draws from
_RISE = 0.75  # share of the training in which a curriculum rises; at the very end the learning rate is almost 0


def radius_factor(schedule: str, done: float, shares: Sequence[float], seed: int) -> float:
    """Return what the radii are multiplied by in one step.

    ``curriculum`` rises linearly from 0 to 1 and stays; ``reverse`` is that backwards in time; ``adaptive`` draws from
    ten radii with the given shares (Kinfu & Vidal, "Analysis and Extensions of Adversarial Training for Video
    Classification", CVPRW 2022). The rise is over steps, not over the batches of each epoch.

    Args:
        schedule: name in :data:`robustvid.training.plan.SCHEDULES`.
        done: share of the training that is over, from 0 to 1.
        shares: how likely each radius of ``GRID`` is; used by ``adaptive`` alone.
        seed: of the draw.
    """
    if schedule == "curriculum":
        return min(1.0, done / _RISE)
    if schedule == "reverse":
        return min(1.0, (1 - done) / _RISE)
    if schedule == "adaptive":
        return random.Random(seed).choices(GRID, shares)[0]
    return 1.0
