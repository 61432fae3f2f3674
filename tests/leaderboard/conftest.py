"""A board of noise with entries of linear toy models, made once a session and copied for every test."""

import json
import shutil

import pytest
import torch
from noise import BUDGETS, Noise, toy_model

import robustvid as rv
from robustvid.leaderboard.boards import load_board, write_board
from robustvid.leaderboard.entries import digests, write_entry
from robustvid.reporting.sprites import sprite_sheet


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
    board = write_board(runs["toy"], root, "noise-linf", headline=BUDGETS[2].describe())
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


@pytest.fixture
def many(board):
    """The board with 200 entries: the same three under many names, with clips of a usual size."""
    clips = _large_clips(board)
    originals = [board.folder / name for name in ("toy", "toy-b", "toy-c")]
    for number in range(197):
        folder = board.folder / f"copy-{number:03}"
        shutil.copytree(originals[number % 3], folder)
        (folder / "clips.json").write_text(clips)
        facts = json.loads((folder / "entry.json").read_text())
        facts |= {"id": folder.name, "evidence": digests(folder)}
        (folder / "entry.json").write_text(json.dumps(facts))
    return board


def _large_clips(board):
    """Return clips of 16 frames of 112x112 pixels as an entry keeps them, in noise that no format makes small."""
    clip = json.loads((board.folder / "toy" / "clips.json").read_text())[0]
    clean = torch.randint(0, 256, (3, 16, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sheets = {"clean": sprite_sheet(clean), "adversarial": sprite_sheet(clean)}
    facts = {"frames": 16, "columns": 4, "height": 112, "width": 112, "rms": [0.0] * 16, "peaks": [0] * 16}
    return json.dumps([clip | sheets | facts])
