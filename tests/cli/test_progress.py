"""Bars as a terminal shows them: FORCE_COLOR makes rich draw as on one."""

import pytest

from robustvid.cli.progress import sweep_progress
from robustvid.evaluation.waves import Progress
from robustvid.training.loop import TrainingProgress
from robustvid.training.progress import training_progress


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")


def test_the_bar_of_a_sweep(capsys):
    with sweep_progress() as show:
        show(Progress(2.5, 10, 3, 4, "linf frame 8/255"))
    told = capsys.readouterr().err
    assert "2/10 clips" in told
    assert "robust 75% at linf frame 8/255" in told


def test_the_bar_of_a_training(capsys):
    with training_progress(2) as show:
        show(TrainingProgress(3, 8, 0.25, 12.0))
    told = capsys.readouterr().err
    assert "3/8 updates" in told
    assert "12.0 clips/s" in told
    assert "loss 0.250" in told
