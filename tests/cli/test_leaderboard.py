"""robustvid leaderboard and attack --board, as a user types them."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

import robustvid as rv
from robustvid.cli import main
from robustvid.leaderboard.boards import load_board

MINE = """
import robustvid as rv
from noise import Noise, toy_model


def model():
    return toy_model()


def videos(split="test"):
    return Noise(toy_model())
"""
RUN = ["attack", "-m", "mine.py:model", "-d", "mine.py:videos", "-b", "quick", "--mlflow", "off", "--clips", "all"]
RUN += ["--eps-frame", "1/510,1/255,2/255,4/255", "--out", "runs/mine"]
NEW = ["leaderboard", "new", "noise-linf", "runs/mine", "--headline", "linf frame 2/255"]
SUBMIT = ["leaderboard", "submit", "runs/mine", "--id", "mine", "--source", "mine.py:model", "--boards", "boards"]


def run(*arguments):
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.fixture
def mine():
    """A measured run, and an empty board whose protocol it follows."""
    Path("mine.py").write_text(MINE)
    assert run(*RUN).exit_code == 0
    assert run(*NEW).exit_code == 0


@pytest.fixture
def entered(mine):
    assert run(*SUBMIT, "--by", "tests").exit_code == 0
    assert run("leaderboard", "add", "mine", "--boards", "boards").exit_code == 0


def test_from_a_run_to_the_page(mine):
    told = run(*SUBMIT, "--by", "me", "--training", "none", "--title", "Mine", "--code-url", "https://example.org/mine")
    assert told.exit_code == 0, told.output
    assert "for the board noise-linf" in told.output
    assert "leaderboard add mine --boards boards" in told.output
    facts = json.loads(Path("mine/entry.json").read_text())
    assert (facts["source"], facts["parameters"], facts["by"]) == ("mine.py:model", 3072, "me")
    assert run("leaderboard", "add", "mine", "--boards", "boards").exit_code == 0
    assert "1 entry, " in run("leaderboard", "check", "--boards", "boards").output
    assert "noise-linf" in run("leaderboard", "list", "--boards", "boards").output
    told = run("leaderboard", "build", "--boards", "boards", "--out", "site/index.html")
    assert "Page      site/index.html" in told.output
    assert "Mine" in Path("site/index.html").read_text()


def test_report_shows_an_entry_and_leaves_it_alone(entered):
    told = run("report", "boards/noise-linf/mine")
    assert told.exit_code == 0
    assert "nothing is written into it" in told.output
    assert "linf-frame" in told.output
    assert run("leaderboard", "check", "--boards", "boards").exit_code == 0


def test_a_second_time_is_refused(entered):
    again = run("leaderboard", "add", "mine", "--boards", "boards")
    assert again.exit_code == 2
    assert "has an entry mine already" in again.stderr
    assert run(*SUBMIT).exit_code == 2


def test_check_names_what_is_wrong(entered):
    path = Path("boards/noise-linf/mine/entry.json")
    path.write_text(path.read_text().replace('"clean": 14', '"clean": 16', 1))
    told = run("leaderboard", "check", "--boards", "boards")
    assert told.exit_code == 2
    assert "noise-linf/mine: clean says 16, the evidence gives 14" in told.stderr
    assert "Traceback" not in told.output


def test_add_leaves_nothing_behind_where_it_refuses(mine):
    assert run(*SUBMIT).exit_code == 0
    shutil.copytree("mine", "twin/mine")
    path = Path("twin/mine/entry.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of": "nobody"}))
    told = run("leaderboard", "add", "twin/mine", "--boards", "boards")
    assert told.exit_code == 2
    assert "nobody" in told.stderr
    assert [path.name for path in Path("boards/noise-linf").iterdir()] == ["board.toml"]


def test_a_new_entry_cannot_say_that_it_was_verified(mine):
    assert run(*SUBMIT).exit_code == 0
    path = Path("mine/entry.json")
    path.write_text(path.read_text().replace("self-reported", "verified"))
    told = run("leaderboard", "add", "mine", "--boards", "boards")
    assert told.exit_code == 2
    assert "a new entry is self-reported, this one says verified" in told.stderr


def test_verify_attacks_again_and_notes_it(entered):
    options = ["--boards", "boards", "--clips", "8"]
    unasked = run("leaderboard", "verify", "noise-linf/mine", *options)
    assert unasked.exit_code == 2
    assert "give --model" in unasked.stderr
    options += ["--model", "mine.py:model"]
    refused = run("leaderboard", "verify", "noise-linf/mine", *options)
    assert refused.exit_code == 2
    assert "measured on 'noise', which does not come with robustvid: say with --data" in refused.stderr
    refused = run("leaderboard", "verify", "noise-linf/mine", "--data", "motion10", *options)
    assert refused.exit_code == 2
    assert "measured on 'noise'; motion10 holds 'motion10'" in refused.stderr


def test_verify_agrees(entered):
    options = ["--model", "mine.py:model", "--data", "mine.py:videos", "--boards", "boards", "--clips", "8"]
    options += ["--record", "--by", "me"]
    told = run("leaderboard", "verify", "noise-linf/mine", *options)
    assert told.exit_code == 0, told.output
    assert "noise-linf/mine: agrees with what was found on 8 clips" in told.output
    history = json.loads(Path("boards/noise-linf/mine/entry.json").read_text())["history"]
    assert [line["status"] for line in history] == ["self-reported", "reproduced"]
    options[options.index("8")] = "1000"
    assert run("leaderboard", "verify", "noise-linf/mine", *options, "--out", "whole").exit_code == 0
    history = json.loads(Path("boards/noise-linf/mine/entry.json").read_text())["history"]
    assert [line["status"] for line in history] == ["self-reported", "reproduced", "verified"]
    assert run("leaderboard", "check", "--boards", "boards").exit_code == 0


def test_time_loads_what_it_is_told_to(entered, monkeypatch):
    monkeypatch.setattr("robustvid.compression.cost._SECONDS", 0.02)
    unasked = run("leaderboard", "time", "--boards", "boards")
    assert unasked.exit_code == 2
    assert "give --model" in unasked.stderr
    told = run("leaderboard", "time", "--boards", "boards", "--model", "yours=mine.py:model")
    assert "no sound entry 'yours' on noise-linf" in told.stderr
    told = run("leaderboard", "time", "--boards", "boards", "--model", "mine=mine.py:model")
    assert told.exit_code == 0, told.output
    assert " clips/s" in told.stdout
    assert Path("boards/noise-linf/times.json").is_file()
    assert "1 entry, " in run("leaderboard", "check", "--boards", "boards").output
    Path("mine.py").write_text(MINE.replace("return toy_model()", "return toy_model(seed=1)"))
    told = run("leaderboard", "time", "--boards", "boards", "--model", "mine=mine.py:model")
    assert "not timed: noise-linf/mine: these weights are not those of the entry" in told.stderr


def test_what_follows_no_protocol_is_told_how_it_differs(mine):
    assert run(*RUN[:-2], "--seed", "3", "--out", "runs/other").exit_code == 0
    told = run("leaderboard", "submit", "runs/other", "--id", "other", "--boards", "boards")
    assert told.exit_code == 2
    assert "follows the protocol of no board" in told.stderr
    told = run("leaderboard", "submit", "runs/other", "--id", "other", "--board", "noise-linf", "--boards", "boards")
    assert "seed is 3, the board wants 0" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "mine"], "no BOARD/ID"),
        (["verify", "nowhere/mine"], "no board named 'nowhere'"),
        (["verify", "/mine"], "no board named ''"),
        (["check", "--board", ""], "no board named ''"),
        (["verify", "motion10-linf/nobody"], "no entry 'nobody' on motion10-linf"),
        (["check", "--boards", "."], ". holds no boards"),
        (["verify", "motion10-linf/conv3d", "--boards", "nowhere"], "nowhere holds no boards"),
        (["submit", "nothing", "--id", "x"], "no run 'nothing'"),
        (["time", "--model", "conv3d"], "'conv3d' is no ID=SOURCE"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, message):
    told = run("leaderboard", *arguments)
    assert told.exit_code == 2
    assert message in told.stderr
    assert "Traceback" not in told.output


def test_attack_follows_a_board(small_home, monkeypatch):
    asked = []
    monkeypatch.setattr("robustvid.cli.estimate.estimate", lambda *parts, **rest: asked.append((parts, rest)))
    assert run("attack", "--board", "motion10-linf", "--dry-run").exit_code == 0
    ((model, data, attacks, budgets), settings) = asked[0]
    board = load_board("motion10-linf")
    assert (model.card.name, data.name, data.split, tuple(budgets)) == (
        "conv3d",
        board.data,
        board.split,
        board.budgets,
    )
    assert tuple(attack.key for attack in attacks.attacks) == board.keys
    assert (settings["limit"], settings["seed"], settings["strategy"]) == (400, 0, "bisect")
    refused = run("attack", "--board", "motion10-linf", "--eps-frame", "1/255", "--clips", "3")
    assert refused.exit_code == 2
    assert "--board says what eps_frame, clips are" in refused.stderr
    assert "no board named 'motion11'" in run("attack", "--board", "motion11").stderr
    assert "--boards is the folder of a --board" in run("attack", "--boards", "boards").stderr


def test_a_board_of_ones_own_is_followed(entered):
    told = run("attack", "--board", "noise-linf", "--boards", "boards", "-m", "mine.py:model", "--mlflow", "off")
    assert told.exit_code == 2
    assert "say with --data what loads it" in told.stderr
    follow = ["attack", "--board", "noise-linf", "--boards", "boards", "-m", "mine.py:model", "-d", "mine.py:videos"]
    told = run(*follow, "--mlflow", "off", "--out", "runs/second")
    assert told.exit_code == 0, told.output
    assert "submit runs/second --board noise-linf --boards boards --id NAME" in told.output
    assert rv.Results("runs/second").spec == rv.Results("runs/mine").spec


def test_a_run_that_is_no_protocol_makes_no_board(mine):
    new = ["leaderboard", "new"]
    assert "there already" in run(*NEW).stderr
    assert "a board cannot be called 'Mine/../..'" in run(*new, "Mine/../..", "runs/mine").stderr
    wanted = "--headline takes 'linf frame 1/510', 'linf frame 1/255', "
    assert f"which budget orders the board; {wanted}" in run(*new, "other", "runs/mine").stderr
    strange = run(*new, "other", "runs/mine", "--headline", "l2 clip 1.0")
    assert f"'l2 clip 1.0' is no budget of the run; {wanted}" in strange.stderr
    plain = ["attack", "-m", "mine.py:model", "-d", "mine.py:videos", "--mlflow", "off", "--eps-frame", "1/255"]
    assert run(*plain, "-a", "fgsm", "--out", "runs/plain").exit_code == 0
    refused = run(*new, "other", "runs/plain")
    assert refused.exit_code == 2
    assert "ran fgsm: a board takes a battery" in refused.stderr
    assert run(*plain, "-b", "quick", "--surrogate", "mine.py:model", "--out", "runs/transfer").exit_code == 0
    assert "no protocol for a board: surrogate is" in run(*new, "other", "runs/transfer").stderr
    journal = Path("runs/mine/rows.jsonl")
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:20]))
    assert "is not complete" in run(*new, "other", "runs/mine").stderr
    assert [path.name for path in Path("boards").iterdir()] == ["noise-linf"]


def test_serve_shows_the_page_on_this_machine_alone():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "robustvid", "leaderboard", "serve", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert f"http://127.0.0.1:{port}/" in process.stdout.readline()
            time.sleep(0.2)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                assert "robustvid leaderboards" in answer.read().decode()
        finally:
            process.terminate()
