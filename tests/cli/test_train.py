"""``robustvid train-adv`` as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from toys import Brightness, small_model

import robustvid as rv
from robustvid.cli import main
from robustvid.data.decode import write_video
from robustvid.models.checkpoint import save_checkpoint

BASE = ["train-adv", "-m", "small", "-d", "toys:Brightness", "--epochs", "2", "--holdout", "6", "--batch-size", "8"]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    save_checkpoint(small_model(), "small")


def run(*arguments):
    return CliRunner().invoke(main, [*BASE, *arguments], catch_exceptions=False)


def client():
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri="sqlite:///mlflow.db")


def test_it_trains_tells_what_it_is_worth_and_the_model_loads():
    result = run("--mlflow", "off", "--out", "mine", "--clips", "12", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["folder"] == "mine"
    assert [record["epoch"] for record in told["history"]] == [1, 2]
    assert [curve["model"] for curve in told["curves"]] == ["before", "after"]
    radii = [point["eps_frame"] for point in told["curves"][1]["curves"][0]["points"]]
    assert radii[1:] == ["2/255", "4/255", "8/255", "12/255"]
    assert "epoch 2/2" in result.stderr
    model = rv.load_model("mine")
    assert model.card.name == "test-n-fgsm"
    assert model.card.lineage[-1]["plan"]["threats"] == ["linf frame 8/255"]
    assert model.card.lineage[-1]["command"].startswith("robustvid")
    again = run("--mlflow", "off", "--out", "mine", "--clips", "12", "--json")
    assert json.loads(again.stdout)["history"] == told["history"]


def test_a_mix_of_threats_and_every_setting():
    result = run(
        *(
            "--objective",
            "pgd:steps=1",
            "--threat",
            "linf frame 4/255",
            "--threat",
            "flicker:steps=1 @ linf frame 8/255",
        ),
        *("--mix", "max", "--schedule", "curriculum", "--awp", "0.005", "--ema", "0.9"),
        *("--clips", "0", "--mlflow", "off", "--name", "mixed"),
    )
    assert result.exit_code == 0, result.output
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("mixed-brightness-")
    plan = json.loads((folder / "spec.json").read_text())["plan"]
    assert (plan["mix"], plan["schedule"], plan["awp"], plan["ema"]) == ("max", "curriculum", 0.005, 0.9)
    assert len(plan["threats"]) == 2


def test_the_table_has_no_row_for_radius_0():
    result = run("--norm", "l2", "--eps-clip", "2", "--clips", "4", "--mlflow", "off", "--epochs", "1")
    assert result.exit_code == 0, result.output
    rows = [line.split("  ")[0].strip() for line in result.stdout.splitlines() if line.strip().startswith("l2-clip")]
    assert rows == [f"l2-clip: clip {radius}" for radius in ("0.5", "1.0", "2.0", "3.0")]


def test_a_threat_that_names_its_attack_is_measured_by_it():
    """Its budget may be the whole range, of which there is no multiple."""
    attack = ("--objective", "pgd", "--attack", "patch:steps=1", "--eps-frame", "1")
    result = run(*attack, "--clips", "4", "--mlflow", "off", "--epochs", "1", "--json")
    assert result.exit_code == 0, result.output
    curves = json.loads(result.stdout)["curves"]
    assert {curve["attack"] for curve in curves[1]["curves"]} == {"worst", "patch:steps=1"}
    assert [point["eps_frame"] for point in curves[1]["curves"][0]["points"]][1:] == ["0.25", "0.5", "1.0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "pdg"], "Did you mean 'pgd'"),
        (["--objective", "trades:betta=1"], "Did you mean 'beta'"),
        (["--threat", "linf 8"], "is not a budget"),
        (["--threat", "linf frame 8/255", "--eps-frame", "4/255"], "not both"),
        (["--eps-frame", "4/255,8/255"], "take one value here"),
        (["--eps-frame", "8"], "did you mean 8/255"),
        (["--attack", "flicker"], "finds its clips itself"),
        (["--ema", "1"], "--ema"),
        (["-m", "nowhere"], "no model named 'nowhere'"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, message):
    result = run("--mlflow", "off", *arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert message in line.replace("\n", " ")
    assert "Traceback" not in result.output
    assert not Path("runs").exists()


def test_mlflow_hears_of_every_epoch_once_and_the_registry_keeps_the_best():
    assert run("--out", "mine", "--clips", "0", "--register", "small-robust").exit_code == 0
    assert CliRunner().invoke(main, ["sync", "mine"], catch_exceptions=False).exit_code == 0
    experiment = client().get_experiment_by_name("robustvid-train-brightness")
    (found,) = client().search_runs([experiment.experiment_id])
    history = json.loads(Path("mine/history.json").read_text())
    for key in ("train/loss", "val/robust_acc", "val/clean_acc", "train/lr", "time/clips_per_s"):
        metrics = sorted(client().get_metric_history(found.info.run_id, key), key=lambda metric: metric.step)
        assert [(m.step, m.value) for m in metrics] == [(r["step"], r[key]) for r in history], key
    assert found.info.status == "FINISHED"
    assert found.data.params["objective"] == "n-fgsm"
    assert found.data.tags["robustvid.kind"] == "train-adv"
    versions = client().search_model_versions("name = 'small-robust'")
    assert [version.version for version in versions] == [1] or [v.version for v in versions] == ["1"]
    for alias in ("latest-robust", "most-robust"):
        tagged = client().get_model_version_by_alias("small-robust", alias)
        assert tagged.tags["robustvid.weights_sha256"] == rv.load_model("mine").card.weights_digest


def test_a_dead_server_costs_a_warning_and_sync_makes_up_for_it(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = run("--out", "mine", "--clips", "0")
    assert result.exit_code == 0
    assert result.stderr.count("robustvid sync mine") == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert CliRunner().invoke(main, ["sync", "mine"], catch_exceptions=False).exit_code == 0
    assert client().get_experiment_by_name("robustvid-train-brightness")


def test_list_and_report_know_a_training_from_a_run():
    run("--mlflow", "off", "--clips", "0")
    told = CliRunner().invoke(main, ["list", "runs"], catch_exceptions=False).output
    assert "training, 2 of 2 epochs" in " ".join(told.split())
    (folder,) = Path("runs").iterdir()
    refused = CliRunner().invoke(main, ["report", str(folder)], catch_exceptions=False)
    assert refused.exit_code == 2
    assert "of kind training" in refused.stderr
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(spec | {"plan": []}))
    told = CliRunner().invoke(main, ["list", "runs"], catch_exceptions=False)
    assert told.exit_code == 0
    assert "is damaged: plan is []" in " ".join(told.output.split())


def test_a_model_that_could_not_be_loaded_again_is_refused_first():
    model = small_model()
    model.card = replace(model.card, arch="mine")
    with pytest.raises(rv.RobustvidError, match="could not be loaded again"):
        rv.train(model, __import__("toys").Brightness(), rv.TrainingPlan(1), out="mine")
    assert not Path("mine").exists()


def start(*arguments):
    command = [sys.executable, "-m", "robustvid", *BASE, "--mlflow", "off", "--clips", "0", "--out", "mine", *arguments]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(number, code):
    process = start("--epochs", "4000")
    while not Path("mine/state.pt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert "everything is kept in mine. To go on:" in told
    assert torch.load("mine/state.pt", weights_only=True)["step"] > 0


def test_bf16_is_refused_on_a_cpu():
    refused = run("--precision", "bf16", "--device", "cpu", "--mlflow", "off")
    assert refused.exit_code == 2
    assert "bf16 is for GPUs" in refused.stderr


def test_videos_that_cannot_be_read_stop_a_training_or_are_skipped():
    for number in range(12):
        path = Path("videos", ("dark", "bright")[number % 2], f"{number:02d}.mkv")
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = Brightness().sample(number, small_model().card.clip).frames
        write_video(path, frames, 12, "ffv1", pixel_format="bgr0")
    Path("videos/dark/04.mkv").write_text("no video")
    model = small_model()
    model.card = replace(model.card, classes=("bright", "dark"))  # as the folders are sorted
    save_checkpoint(model, "sorted")
    here = [
        "-m",
        "sorted",
        "-d",
        "folder",
        "--root",
        "videos",
        "--mlflow",
        "off",
        "--clips",
        "0",
        "--out",
        "mine",
        "--holdout",
        "0",
    ]
    stopped = CliRunner().invoke(main, [*BASE, *here])
    assert stopped.exit_code != 0
    assert "--on-error skip leaves such videos out" in stopped.output
    assert run(*here, "--on-error", "skip").exit_code == 0
    (listed,) = json.loads(Path("mine/left_out.json").read_text())
    assert listed["file"].endswith("04.mkv")
