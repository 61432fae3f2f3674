"""``robustvid compress`` end to end: what it writes is a model, what it compares is measured, mistakes are one line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import robustvid as rv
from robustvid.cli import main
from robustvid.compression import export
from robustvid.compression.prune import zeros

pytestmark = pytest.mark.usefixtures("small_home")
DEPLOY = pytest.mark.usefixtures("deploy")


def run(*words):
    return CliRunner().invoke(main, ["compress", *map(str, words), "--mlflow", "off"])


@DEPLOY
def test_pruned_channels_are_compared_before_and_after():
    done = run("prune", "--epochs", 0, "--amount", 0.5, "--evaluate", "--battery", "quick", "--clips", 3, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    before, after = told["rows"]
    assert after["parameters"] < before["parameters"] / 2
    assert after["latency_ms_p50"] < before["latency_ms_p50"]
    assert before["n"] == after["n"] == 3
    assert 'role="img"' in (Path(told["folder"]) / "pareto.svg").read_text()
    slim = rv.load_model(told["folder"])
    assert slim.card.name == told["model"] == "conv3d-channels-50"
    assert slim.card.lineage[-1]["step"] == "prune"


def test_what_was_zeroed_stays_zero_through_training():
    done = run("prune", "--how", "weights", "--amount", 0.8, "--epochs", 1, "--json")
    assert done.exit_code == 0, done.output
    pruned = rv.load_model(json.loads(done.stdout)["folder"])
    assert zeros(pruned) == pytest.approx(0.8, abs=1e-3)


@DEPLOY
def test_a_student_is_smaller_and_remembers_its_teacher():
    done = run("distil", "--model", "conv3d-pgd", "--objective", "kd", "--epochs", 1, "--name", "pupil")
    assert done.exit_code == 0, done.output
    pupil = rv.load_model("runs/pupil")
    assert sum(p.numel() for p in pupil.parameters()) < 230_114 / 2
    assert "conv3d-pgd" in json.dumps(pupil.card.lineage[-1])


@DEPLOY
def test_an_exported_graph_is_checked_and_can_be_attacked():
    done = run("export", "--runtime", "onnx", "--out", "graph")
    assert done.exit_code == 0, done.output
    assert "agree on 20 of 20 test clips" in done.stderr
    words = ["attack", "--model", "graph", "-a", "fgsm", "--eps-frame", "8/255", "--clips", "2", "--mlflow", "off"]
    assert CliRunner().invoke(main, words).exit_code == 0


@DEPLOY
def test_a_graph_that_answers_otherwise_is_set_aside(monkeypatch):
    monkeypatch.setitem(export.TOLERANCE, "float32", 0.0)
    done = run("export", "--runtime", "onnx", "--out", "graph")
    assert done.exit_code == 2
    assert "it is set aside as graph.refused" in done.stderr
    assert not Path("graph").exists()
    assert rv.load_model("graph.refused").card.name == "conv3d-onnx-float32"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prune", "--model", "nobody"], "no model named 'nobody'"),
        (["distil", "--objective", "trades"], "wanted kd, ard or rslad"),
        (["distil", "--objective", "kd:teacher=conv3d"], "the teacher is --model"),
        (["distil", "--epochs", 0], "teaches nothing"),
        (["export", "--out", "full"], "full is not empty"),
    ],
)
def test_mistakes_are_one_clear_line(words, message, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    _refused(words, message)


@DEPLOY
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prune", "--model", "frame_rnn"], "zero its weights instead"),
        (["prune", "--threat", "l3 frame 2", "--epochs", 1], "l3"),
    ],
)
def test_mistakes_about_channels_are_too(words, message):
    _refused(words, message)


def _refused(words, message):
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
