"""A board of noise with entries of linear toy models, made once a session and copied for every test."""

import shutil

import pytest
from noise import BUDGETS, Noise, protocol, toy_model

import robustvid as rv
from robustvid.leaderboard.boards import load_board
from robustvid.leaderboard.entries import write_entry


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Complete runs of three models that know the same classes."""
    folder = tmp_path_factory.mktemp("runs")
    battery = rv.load_battery("quick")
    models = [toy_model(), toy_model("toy-b", 1), toy_model("toy-c", 2)]
    return {
        model.card.name: rv.evaluate(model, Noise(toy_model()), battery, BUDGETS, out=folder / model.card.name)
        for model in models
    }


@pytest.fixture(scope="session")
def made(runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("boards")
    (root / "noise-linf").mkdir()
    (root / "noise-linf" / "board.toml").write_text(protocol(runs["toy"].spec))
    board = load_board("noise-linf", root)
    for name, results in runs.items():
        facts = {"source": f"mine.py:{name}", "parameters": 3072, "by": "tests", "training": "none"}
        write_entry(results, board, board.folder / name, facts)
    return root


@pytest.fixture
def root(made, tmp_path):
    """Return the folder of all boards, to be changed at will."""
    shutil.copytree(made, tmp_path / "boards")
    return tmp_path / "boards"


@pytest.fixture
def board(root):
    return load_board("noise-linf", root)
