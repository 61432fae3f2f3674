"""Times of models: of the weights that an entry has, of one machine, and never in place of a number that is missing."""

import csv
import html
import io
import json
import re
from urllib.parse import unquote

import pytest
from noise import toy_model

from robustvid.leaderboard.checking import check_board, sound_entries
from robustvid.leaderboard.page import write_page
from robustvid.leaderboard.timing import TIMES, read_times, time_models, write_times


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    monkeypatch.setattr("robustvid.compression.cost._SECONDS", 0.02)


@pytest.fixture
def timed(board):
    """The board with times of two of its three models, one of them under the id of another."""
    times = time_models({"toy": toy_model(), "toy-b": toy_model("toy-b", 1), "toy-c": toy_model()})
    assert write_times(board, sound_entries(board)[0], times) == ["toy-c"]
    return board


def lines_of(board, tmp_path):
    path, left_out = write_page([board], tmp_path / "index.html")
    text = unquote(html.unescape(re.search(r'href="data:text/csv;charset=utf-8,([^"]*)"', path.read_text())[1]))
    return {line["id"]: line for line in csv.DictReader(io.StringIO(text))}, path.read_text(), left_out


def test_the_page_shows_what_was_timed(timed, tmp_path):
    assert check_board(timed) == {}
    lines, page, left_out = lines_of(timed, tmp_path)
    times = read_times(timed)["models"]
    assert left_out == {}
    assert {name: line["ms"] for name, line in lines.items()} == {
        "toy": str(times["toy"]["p50"]),
        "toy-b": str(times["toy-b"]["p50"]),
        "toy-c": "",
    }
    assert 'data-ms=""' in page
    assert "all models in turns, on 1 thread of cpu (" in page
    assert "against time: " in page


def test_a_board_without_times_has_no_such_figure(board, tmp_path):
    lines, page, _ = lines_of(board, tmp_path)
    assert {line["ms"] for line in lines.values()} == {""}
    assert "against parameters: " in page
    assert "against time: " not in page


def test_times_of_other_weights_are_found(timed, tmp_path):
    path = timed.folder / TIMES
    times = json.loads(path.read_text())
    times["models"]["toy-c"] = times["models"]["toy"]
    times["models"] |= dict.fromkeys(("nobody", ".."), times["models"]["toy"])
    path.write_text(json.dumps(times))
    faults = check_board(timed)
    assert faults.keys() == {TIMES}
    assert "it times 'nobody', which is no entry" in faults[TIMES][0]
    assert "it times '..', which is no entry" in faults[TIMES][1]
    assert "toy-c was timed with other weights" in faults[TIMES][2]
    lines, _, left_out = lines_of(timed, tmp_path)
    assert left_out == {f"noise-linf/{TIMES}": faults[TIMES]}
    assert {line["ms"] for line in lines.values()} == {""}


@pytest.mark.parametrize(
    "change",
    [
        {"device": "x" * 300},
        {"device": 3},
        {"threads": -1},
        {"date": "yesterday"},
        {"schema": "robustvid.times/0"},
        {"models": []},
        {"more": 1},
        {"models": {"toy": {"weights_sha256": "0" * 64, "p50": -1, "p95": 1, "clips_per_second": 1}}},
        {"models": {"toy": {"weights_sha256": "0" * 64, "p50": "<b>", "p95": 1, "clips_per_second": 1}}},
        {"models": {"toy": {"weights_sha256": "0" * 64, "p50": 10**400, "p95": 1, "clips_per_second": 1}}},
        {"models": {"toy": {"weights_sha256": "0" * 64, "p50": 1}}},
    ],
)
def test_hostile_times_are_refused(timed, change):
    path = timed.folder / TIMES
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert check_board(timed).keys() == {TIMES}


@pytest.mark.parametrize("content", ["", "[]", '{"models": NaN}'])
def test_what_holds_no_times_is_refused(timed, content):
    (timed.folder / TIMES).write_text(content)
    assert check_board(timed).keys() == {TIMES}
