"""Radii on the command line, exactly as written."""

from fractions import Fraction

import pytest

from robustvid.cli.grid import make_budgets, parse_frames, parse_radii
from robustvid.errors import BudgetError


@pytest.mark.parametrize(
    ("text", "radii"),
    [
        ("8/255", [Fraction(8, 255)]),
        ("0.5", [0.5]),
        ("1/255, 2/255", [Fraction(1, 255), Fraction(2, 255)]),
        ("0..16:4/255", [Fraction(n, 255) for n in (4, 8, 12, 16)]),
        ("1..16*2/255", [Fraction(n, 255) for n in (1, 2, 4, 8, 16)]),
        ("0.25..2*2", [0.25, 0.5, 1.0, 2.0]),
        ("0.1..0.3:0.1", [0.1, 0.2, 0.3]),
        ("1/255,0,1/255", [Fraction(1, 255)]),
    ],
)
def test_radii(text, radii):
    assert parse_radii(text) == radii


UNREADABLE = (
    "abc 1.. 1..4 0..4*2/255 5..1:1/255 1..4:0/255 0 1/0 1..9999:1 2..8:2/0 a..8:2/255 1..2:x/255 1..1e999:1/255"
)


@pytest.mark.parametrize("text", ["", *UNREADABLE.split()])
def test_unreadable_radii_are_refused(text):
    with pytest.raises(BudgetError):
        parse_radii(text)


def test_frames():
    assert parse_frames("1, 4,all") == [1, 4, None]
    for text in ("0", "-1", "2.5", "some"):
        with pytest.raises(BudgetError):
            parse_frames(text)


def test_what_is_left_out_is_filled_in():
    names = [
        budget.norm + ("-clip" if budget.clip is not None else "-frame")
        for budget in make_budgets(None, None, None, None)
    ]
    assert set(names) == {"linf-frame", "l2-clip"}
    assert {budget.norm for budget in make_budgets(None, None, "0.5", None)} == {"l2"}
    assert {budget.norm for budget in make_budgets(None, "0.5", "0.5", None)} == {"l2"}
    assert len(make_budgets(None, "1..8*2/255", None, "1,2,all")) == 12


def test_linf_with_a_clip_radius_is_refused():
    with pytest.raises(BudgetError, match="same set"):
        make_budgets("linf", None, "0.5", None)
