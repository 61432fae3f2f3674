"""Ranks by the paired test, shared where it cannot tell, and rows that others lower."""

import pandas as pd
import pytest

import robustvid as rv
from robustvid.leaderboard.boards import load_board
from robustvid.leaderboard.checking import find_entry
from robustvid.leaderboard.entries import write_entry
from robustvid.leaderboard.ranking import places


class Drawn:
    """An entry whose clips stand as given."""

    def __init__(self, name, standing, of=None):
        self.id, self.of, self.status, self._standing = name, of, "self-reported", standing
        self.facts = {"numbers": {"headline": {"correct": sum(standing)}}}
        self.results = self

    def verdicts(self, threat, attack=None):
        samples = [f"s{place}" for place in range(len(self._standing))]
        return pd.DataFrame(
            {"sample": samples, "digest": "", "label": 0, "clean": True, "linf frame 2/255": self._standing}
        )


def first(n, of=100):
    return [place < n for place in range(of)]


def test_models_that_cannot_be_told_apart_share_a_place(board):
    drawn = [Drawn("a", first(60)), Drawn("b", first(57)), Drawn("c", first(40)), Drawn("d", first(10))]
    assert [(place.entry.id, place.rank) for place in places(board, drawn)] == [("a", 1), ("b", 1), ("c", 3), ("d", 4)]


def test_the_test_is_paired(board):
    # Six clips that only one stands, none that only the other stands: told apart, though the intervals overlap widely.
    drawn = [Drawn("a", first(50)), Drawn("b", first(44))]
    better, worse = places(board, drawn)
    assert (better.rank, worse.rank) == (1, 2)
    assert better.lo < worse.hi
    # As many clips apart, but in both directions.
    mixed = [place < 40 or 60 <= place < 64 for place in range(100)]
    assert [place.rank for place in places(board, [Drawn("a", first(50)), Drawn("b", mixed)])] == [1, 1]


def test_five_clips_are_not_enough_and_six_are(board):
    # McNemar, exact and two-sided: 2 / 2^5 = 0.0625, 2 / 2^6 = 0.03125.
    assert places(board, [Drawn("a", first(50)), Drawn("b", first(45))])[1].rank == 1
    assert places(board, [Drawn("a", first(50)), Drawn("b", first(44))])[1].rank == 2


def test_another_evaluation_lowers_the_row_clip_by_clip(board):
    again = [place >= 20 for place in range(100)]
    (place,) = places(board, [Drawn("a", first(60)), Drawn("again", again, of="a")])
    assert place.correct == 40
    assert [other.id for other in place.lowered_by] == ["again"]
    assert place.status == "flagged"  # 40 of 100 lies below the interval of 60 of 100


def test_an_evaluation_that_breaks_little_flags_nothing(board):
    again = [place >= 2 for place in range(100)]
    (place,) = places(board, [Drawn("a", first(60)), Drawn("again", again, of="a")])
    assert (place.correct, place.status) == (58, "self-reported")


def test_an_evaluation_that_breaks_nothing_more_lowers_nothing(board):
    (place,) = places(board, [Drawn("a", first(60)), Drawn("again", [True] * 100, of="a")])
    assert (place.correct, place.lowered_by) == (60, ())


def test_shares_are_compared_clip_by_clip():
    """Corruptions leave shares of clips: a paired t-test, and an interval by bootstrap."""
    board = load_board("motion10-corruptions")
    column = {"linf frame 1.0": "stands"}

    class Mean(Drawn):
        attacks = ("one", "two")

        def verdicts(self, threat, attack=None):
            table = super().verdicts(threat).rename(columns={"linf frame 2/255": "linf frame 1.0"})
            return table.assign(**{name: [share > (attack == "two") / 2 for share in table[name]] for name in column})

    half, most = Mean("half", [0.5] * 100), Mean("most", [0.5] * 90 + [1.0] * 10)
    better, worse = places(board, [half, most])
    assert (better.entry.id, better.rank, worse.rank) == ("most", 1, 2)
    assert (better.correct, worse.correct) == (55, 50)
    assert better.lo < 0.55 < better.hi
    assert worse.lo == worse.hi == 0.5
    # Many small wins are worth less than few large ones: the mean decides, not the number of clips.
    large = Mean("large", [0.0] * 70 + [1.0] * 30)
    small = Mean("small", [0.5] * 40 + [0.0] * 60)
    assert [(place.entry.id, place.correct) for place in places(board, [small, large])] == [
        ("large", 30),
        ("small", 20),
    ]


def test_real_entries(board, runs):
    ranked = places(board, [find_entry(board, name) for name in runs])
    column = board.headline.describe()
    counts = {name: int(results.verdicts("linf-frame")[column].sum()) for name, results in runs.items()}
    assert {place.entry.id: place.correct for place in ranked} == counts
    assert ranked[0].correct == max(counts.values())


def test_verdicts_agree_with_the_curve(runs):
    for results in runs.values():
        verdicts = results.verdicts("linf-frame")
        assert list(verdicts.iloc[:, 3:].sum()) == list(results.curve("linf-frame").correct)


def test_an_external_run_with_another_battery_can_be_entered(board, runs, tmp_path):
    from noise import BUDGETS, Noise, toy_model

    pgd = rv.evaluate(toy_model(), Noise(toy_model()), "pgd:steps=20,restarts=2", BUDGETS, out=tmp_path / "pgd")
    write_entry(pgd, board, board.folder / "toy-pgd", {"of": "toy", "by": "others"})
    entries = [find_entry(board, name) for name in ("toy", "toy-pgd")]
    (place,) = places(board, entries)
    assert place.correct <= entries[0].facts["numbers"]["headline"]["correct"]


@pytest.mark.parametrize("name", ["ucf101-linf", "hmdb51-linf", "kinetics-linf", "ucf101-l2"])
def test_boards_without_entries_have_no_rows(name):
    assert places(load_board(name), []) == []
