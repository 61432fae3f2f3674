"""A board of corruptions: means over kinds and severities."""

import json

import pytest
from noise import Noise, toy_model

import robustvid as rv
from robustvid.attacks.corruption import KINDS
from robustvid.leaderboard.boards import load_board, write_board
from robustvid.leaderboard.checking import check_board, find_entry
from robustvid.leaderboard.entries import write_entry
from robustvid.leaderboard.page import write_page
from robustvid.leaderboard.ranking import places
from robustvid.leaderboard.verifying import verify

TWO = ("gaussian-noise", "contrast")
ANY = rv.Budget("linf", 1.0)


@pytest.fixture
def entered(tmp_path):
    attacks = [f"corruption:kind={kind},severity={severity}" for kind in TWO for severity in range(1, 6)]
    results = rv.evaluate(toy_model(), Noise(toy_model()), attacks, [ANY], out=tmp_path / "run")
    board = write_board(results, tmp_path / "boards", "noise-corruptions")
    write_entry(results, board, board.folder / "toy", {"source": "mine.py:toy", "parameters": 3072})
    return board, results


def test_the_headline_is_the_mean_over_everything(entered):
    board, results = entered
    assert check_board(board) == {}
    numbers = find_entry(board, "toy").facts["numbers"]
    each = [int(results.curve("linf-frame", attack).correct.iloc[-1]) for attack in results.attacks]
    assert [count for line in numbers["corruptions"] for count in line["correct"]] == each
    assert [line["kind"] for line in numbers["corruptions"]] == list(TWO)
    assert numbers["headline"]["correct"] == pytest.approx(sum(each) / len(each), abs=1e-5)
    (place,) = places(board, [find_entry(board, "toy")])
    assert place.correct == numbers["headline"]["correct"]
    assert 0 <= place.lo <= place.correct / place.n <= place.hi <= 1


def test_the_page_shows_kinds_by_severities(entered, tmp_path):
    page = write_page([entered[0]], tmp_path / "index.html")[0].read_text()
    assert "the mean over 2 corruptions at 5 severities" in page
    assert '<th scope="row">contrast</th>' in page
    assert "severity of the corruption" in page


def test_a_changed_count_is_found(entered):
    board, _ = entered
    path = board.folder / "toy" / "entry.json"
    facts = json.loads(path.read_text())
    facts["numbers"]["corruptions"][1]["correct"][2] = 16
    path.write_text(json.dumps(facts))
    (fault,) = check_board(board)["toy"]
    assert fault.startswith("corruptions[1].correct[2] says 16")


def test_the_mean_is_verified(entered, tmp_path):
    board, _ = entered
    entry = find_entry(board, "toy")
    clean, mean = verify(entry, board, toy_model(), Noise(toy_model()), tmp_path / "again", clips=16)
    assert (clean.budget, clean.differing) == ("clean", 0)
    assert mean.budget == "the mean over 2 corruptions at 5 severities"
    assert mean.stated == entry.facts["numbers"]["headline"]["correct"]
    assert mean.found != mean.stated  # other noise
    assert mean.agrees


def test_the_shipped_board_has_every_kind():
    assert load_board("motion10-corruptions").corruptions == tuple(KINDS)
