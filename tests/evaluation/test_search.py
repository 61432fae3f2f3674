"""The hunt finds the same critical radius as trying everything, whatever the shape of the threat."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from robustvid.budget import Budget
from robustvid.errors import BudgetError, RobustvidError
from robustvid.evaluation.search import STRATEGIES, Hunt
from robustvid.evaluation.threats import Sizes, group_threats
from robustvid.registry import check_name

LADDER = [Budget("linf", f"{n}/255") for n in (8, 1, 4, 2, 16)]
SURFACE = [Budget("linf", f"{n}/255", frames=k) for n in (1, 2, 4) for k in (1, 2, 8, None)]


def hunt_down(threat, strategy, breaks, criticals=()):
    """Run a hunt in which attack a breaks the cells ``breaks[a]``; return it and the number of measurements."""
    hunt, tries = Hunt(threat, len(breaks), strategy, criticals), []
    while (attempt := hunt.next()) is not None:
        assert attempt not in tries
        tries.append(attempt)
        robust = not breaks[attempt.attack][attempt.cell]
        hunt.record(attempt, robust=robust, fits=threat.inside[attempt.cell])
    return hunt, tries


def up_set(threat, seeds):
    """The cells that contain one of the seeds: what a monotone attack breaks."""
    cells = [cell for cell in seeds if cell < len(threat.budgets)]
    return threat.inside[cells].any(0) if cells else np.zeros(len(threat.budgets), dtype=bool)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([LADDER, SURFACE]),
    st.sampled_from(["bisect", "every"]),
    st.lists(st.lists(st.integers(0, 11), max_size=3), min_size=1, max_size=3),
)
def test_for_monotone_attacks_both_strategies_find_what_breaks(budgets, strategy, seeds):
    (threat,) = group_threats(budgets)
    breaks = [up_set(threat, cells) for cells in seeds]
    hunt, _ = hunt_down(threat, strategy, breaks)
    assert ((hunt.broken_by >= 0) == np.any(breaks, axis=0)).all()
    assert hunt.done == 1


def test_a_search_needs_about_log_k_and_later_attacks_one():
    (threat,) = group_threats([Budget("linf", f"{n}/255") for n in range(1, 16)])
    for first in range(16):
        breaks = np.arange(15) >= first
        _, tries = hunt_down(threat, "bisect", [breaks])
        assert len(tries) <= 6
        _, later = hunt_down(threat, "bisect", [breaks, breaks, breaks])
        assert len(later) <= len(tries) + 2
    _, tries = hunt_down(threat, "every", [np.zeros(15, dtype=bool)])
    assert len(tries) == 15


def spent(threat, criticals, first):
    """What a search costs on a clip whose critical cell is ``first``, in attacks that fail."""
    _, tries = hunt_down(threat, "bisect", [np.arange(len(threat.budgets)) >= first], criticals)
    return sum(0.5 if attempt.cell >= first else 1.0 for attempt in tries)


def test_the_order_of_a_search_is_the_cheapest_for_what_was_seen():
    (threat,) = group_threats([Budget("linf", f"{n}/255") for n in range(1, 9)])
    seen = [0, 0, 0, 0, 0, 1, 50, 20, 1]
    weights = np.array(seen) + 0.5
    mean = {
        name: sum(weights[first] * spent(threat, order, first) for first in range(9)) / weights.sum()
        for name, order in (("learned", seen), ("untaught", ()))
    }
    assert mean["learned"] < 0.8 * mean["untaught"]
    assert spent(threat, seen, 6) == 1.5  # one success, one failure: the least that proves a critical radius


def test_the_critical_cell_is_that_of_the_first_attack():
    (threat,) = group_threats(LADDER)
    hunt, _ = hunt_down(threat, "bisect", [np.arange(5) >= 3, np.arange(5) >= 1])
    assert hunt.critical == 3
    hunt, _ = hunt_down(threat, "bisect", [np.zeros(5, dtype=bool)])
    assert hunt.critical == 5


def test_a_later_attack_starts_at_the_largest_budget_that_stands():
    (threat,) = group_threats(LADDER)
    _, tries = hunt_down(threat, "bisect", [np.arange(5) >= 3, np.arange(5) >= 1])
    later = [attempt.cell for attempt in tries if attempt.attack == 1]
    assert later[0] == 2


def test_a_small_perturbation_breaks_every_budget_that_holds_it():
    (threat,) = group_threats(LADDER)
    fits = threat.holds(Sizes(linf=1.5 / 255, l2_frame_max=9, l2_clip=9, frames_touched=8), 100, 8)
    assert fits.tolist() == [False, True, True, True, True]
    hunt = Hunt(threat, 1, "bisect")
    hunt.record(hunt.next(), robust=False, fits=fits)
    assert hunt.broken_by.tolist() == [-1, 0, 0, 0, 0]


def test_threats_are_grouped_named_and_sorted():
    threats = group_threats([*LADDER, Budget("l2", clip=1.0), Budget("l2", 0.5, 1.0), Budget("l2", 0.5), LADDER[0]])
    assert [threat.name for threat in threats] == ["linf-frame", "l2-clip", "l2-frame-clip", "l2-frame"]
    assert [float(budget.frame) * 255 for budget in threats[0].budgets] == pytest.approx([1, 2, 4, 8, 16])
    (surface,) = group_threats(SURFACE)
    assert surface.name == "linf-frame-k"
    for small, large in zip(*surface.inside.nonzero(), strict=True):
        assert small <= large


def test_batches_carry_each_clips_own_radius():
    (threat,) = group_threats(SURFACE)
    budget = threat.batch([0, 11, 5], frames=8)
    written = [threat.budgets[cell] for cell in (0, 11, 5)]
    assert budget.frame.tolist() == [float(each.frame) for each in written]
    assert budget.frames.tolist() == [each.frames or 8 for each in written]


def test_nonsense_is_refused():
    with pytest.raises(RobustvidError, match="Did you mean 'bisect'"):
        check_name("strategy", "bisekt", STRATEGIES)
    with pytest.raises(BudgetError, match="no budgets"):
        group_threats([])


def test_what_was_never_tried_is_known():
    (threat,) = group_threats(LADDER)
    hunt, tries = hunt_down(threat, "bisect", [np.arange(5) >= 4, np.arange(5) >= 4])
    tried = {tuple(attempt) for attempt in tries}
    implied = {(attack, cell) for attack in (0, 1) for cell in range(4)}
    assert {tuple(attempt) for attempt in hunt.skipped} == implied - tried
    assert hunt_down(threat, "every", [np.arange(5) >= 4])[0].skipped == []
