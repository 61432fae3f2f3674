"""Every command as a user types it: what it prints, its exit code, and that failures are one clear line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from robustvid.cli import main

MINE = """
import torch
import robustvid as rv
from robustvid.models.classifier import VideoClassifier
from robustvid.testing import TinyVideoNet

CLASSES = ("a", "b", "c", "d")

def model(frames=4):
    return VideoClassifier(TinyVideoNet(4), rv.ModelCard("tiny", "tiny", CLASSES, rv.ClipSpec(frames, 1, (16, 16))))

def longer():
    return model(frames=8)

class Videos:
    name, split, classes, digest = "fake", "test", CLASSES, "v1"

    def __len__(self):
        return 24

    def sample(self, index, clip):
        generator = torch.Generator().manual_seed(index)
        frames = torch.randint(60, 200, (clip.frames, *clip.size, 3), generator=generator, dtype=torch.uint8)
        with torch.no_grad():
            label = int(model().eval()(frames.permute(3, 0, 1, 2)[None] / 255).argmax())
        return rv.Sample(f"v{index}", frames, label)

def videos(root=None, split="test"):
    return Videos()

def greedy(model, clips, labels, budget, seeds):
    return (clips + 0.5).clamp(0, 1)

def slow(model, clips, labels, budget, seeds):
    import time
    time.sleep(0.3)
    return clips
"""
BASE = ["attack", "-m", "mine.py:model", "-d", "mine.py:videos", "-n", "12", "--mlflow", "off"]


@pytest.fixture(autouse=True)
def _mine():
    Path("mine.py").write_text(MINE)


def run(*arguments):
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def fails(*arguments):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.strip().splitlines() if line.startswith("Error:")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    return lines[0]


def test_help_is_fast_and_needs_no_torch():
    code = "import sys; from robustvid.cli import main; main(['--help'], standalone_mode=False); "
    code += "print('torch' in sys.modules)"
    begin = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"
    assert time.monotonic() - begin < 5  # 0.15 s on an idle machine; loaded ones are no reason to fail


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_an_example(command):
    assert f"  robustvid {command}" in run(command, "--help").output


def test_attack_writes_a_run_and_prints_a_table():
    result = run(*BASE, "--eps-frame", "1/255,64/255", "-a", "fgsm")
    assert result.exit_code == 0
    (folder,) = Path("runs").iterdir()
    assert {"spec.json", "rows.jsonl", "summary.json", "report.html", "environment.json", "figures"} <= {
        p.name for p in folder.iterdir()
    }
    assert "64/255" in result.output
    assert "report.html" in result.output


def test_json_is_one_object_on_stdout():
    result = run(*BASE, "--eps-frame", "1/255,64/255", "--json")
    summary = json.loads(result.stdout)
    assert {"run", "n", "clean", "curves", "flags", "cost"} <= set(summary)
    assert {"correct", "acc", "lo", "hi"} <= set(summary["clean"])
    assert {"forwards", "backwards", "seconds"} <= set(summary["cost"])
    assert {(curve["threat"], curve["attack"]) for curve in summary["curves"]} == {
        ("linf-frame", name) for name in ("fgsm", "mi-fgsm", "pgd", "worst")
    }
    points = summary["curves"][-1]["points"]
    assert [point["eps_frame"] for point in points] == ["0", "1/255", "64/255"]
    assert set(points[0]) == {"eps_frame", "eps_clip", "frames", "n", "correct", "acc", "lo", "hi"}
    assert Path(summary["run"], "rows.jsonl").is_file()


def test_the_same_command_goes_on_and_report_shows_it_again():
    first = json.loads(run(*BASE, "--eps-frame", "4/255", "--json").stdout)
    journal = Path(first["run"], "rows.jsonl")
    journal.write_bytes(journal.read_bytes()[:-30])
    second = json.loads(run(*BASE, "--eps-frame", "4/255", "--json", "--batch-size", "3").stdout)
    assert {key: second[key] for key in ("run", "n", "clean", "curves")} == {
        key: first[key] for key in ("run", "n", "clean", "curves")
    }
    shown = json.loads(run("report", Path(first["run"]).name, "--json").stdout)
    assert shown["curves"] == first["curves"]
    assert Path(first["run"]).name in run("list", "runs").output


def test_dry_run_measures_nothing():
    result = run(*BASE, "--eps-frame", "4/255", "--dry-run")
    assert result.exit_code == 0
    assert "s at most" in result.output
    assert not Path("runs").exists()
    assert json.loads(run(*BASE, "--eps-frame", "4/255", "--dry-run", "--json").stdout)["clips"] == 12


@pytest.mark.parametrize(
    "arguments",
    [
        ["attack", "--board", ""],  # "$BOARD", which the shell does not know
        ["attack", "--surrogate", ""],
        ["attack", "-a", "fgsm", "-a", ""],
        ["train-adv", "--threat", ""],
        ["compress", "prune", "--root", ""],
        ["live", "x.mp4", "--device", ""],
    ],
)
def test_an_empty_value_is_no_value(arguments):
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 2
    assert "is empty: leave it out, or give it a value" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attack", "-m", "conv3"], "Did you mean 'conv3d'?"),
        (["attack", "-d", "motion1"], "Did you mean 'motion10'?"),
        ([*BASE, "-a", "pdg"], "Did you mean 'pgd'?"),
        ([*BASE, "-b", "quik"], "Did you mean 'quick'?"),
        ([*BASE, "--strategy", "bisekt"], "Did you mean 'bisect'?"),
        ([*BASE, "--eps-frame", "8"], "did you mean 8/255?"),
        ([*BASE, "--eps-frame", "lots"], "not a radius"),
        ([*BASE, "--norm", "linf", "--eps-clip", "0.5"], "same set"),
        ([*BASE, "--eps-frame", "8/255", "-a", "mine.py:greedy"], "greedy left its budget"),
        ([*BASE, "-a", "card.toml"], "unknown key 'stesp'"),
        ([*BASE, "-a", "fgsm", "-b", "quick"], "not both"),
        ([*BASE, "--device", "cuda:7"], "device"),
        ([*BASE, "--device", "toaster"], "device"),
        ([*BASE, "-n", "few"], "neither a number of clips nor 'all'"),
        ([*BASE, "--out", "mine.py/run"], "cannot write to mine.py/run"),
        (["report", "nothing"], "no run 'nothing'"),
        (["sync", "nothing"], "no run 'nothing'"),
        (["atack"], "Did you mean 'attack'?"),
        (["attack", "-d", "folder", "--root", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, message):
    Path("card.toml").write_text('title = "t"\nversion = 1\nattack = "pgd"\nstesp = 3\n')
    assert message in fails(*arguments)


def test_a_folder_of_another_spec_is_refused_and_keeps_its_rows():
    run(*BASE, "--eps-frame", "4/255", "--out", "here")
    before = Path("here/rows.jsonl").read_bytes()
    assert "belongs to another run" in fails(*BASE, "--eps-frame", "8/255", "--out", "here")
    assert Path("here/rows.jsonl").read_bytes() == before


def test_an_error_in_the_middle_keeps_what_was_measured():
    assert "greedy" in fails(*BASE, "--eps-frame", "8/255", "-a", "fgsm", "-a", "mine.py:greedy", "--out", "here")
    assert len(Path("here/rows.jsonl").read_text().splitlines()) > 12


def test_json_errors_are_json():
    result = run(*BASE, "--eps-frame", "8", "--json")
    assert result.exit_code == 2


def test_ctrl_c_finishes_the_batch_and_says_how_to_go_on():
    command = [
        sys.executable,
        "-m",
        "robustvid",
        *BASE,
        "-a",
        "mine.py:slow",
        "--batch-size",
        "1",
        "--strategy",
        "every",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    journal = None
    for _ in range(600):
        journal = next(Path("runs").glob("*/rows.jsonl"), None) if Path("runs").exists() else None
        if journal and journal.read_text().count('"slow"') > 1:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "To go on:" in errors
    assert "Traceback" not in errors
    assert journal.read_bytes().endswith(b"\n")


def test_lists():
    models = run("list", "models").output
    assert "conv3d" in models
    assert "torchvision:r3d_18" in models
    assert "videomae" in models
    assert "motion10" in run("list", "data").output
    listed = run("list", "attacks").output
    assert "mi-fgsm" in listed
    assert "battery" in listed
    assert "no runs here" in run("list", "runs").output


def test_doctor_finds_everything(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTVID_HOME", str(tmp_path / "home"))
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert result.output.count("ok ") == 6
    assert torch.__version__.split("+")[0] in result.output


def test_a_crash_of_the_code_that_was_brought_is_one_line_too():
    Path("bad.py").write_text("def build(:\n")
    result = run("attack", "-m", "bad.py:build")
    assert result.exit_code == 1
    assert "SyntaxError" in result.stderr
    assert "Traceback" not in result.output


def test_brackets_in_a_path_are_no_markup():
    result = run(*BASE, "--eps-frame", "4/255", "-a", "fgsm", "--out", "x[y]")
    assert "x[y]/report.html" in result.output


def test_a_bad_tracking_address_costs_a_warning(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://nobody@nowhere/x")
    result = run(*BASE[:-1], "auto", "--eps-frame", "4/255", "-a", "fgsm", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["complete"]
    assert "robustvid sync" in result.stderr


def test_a_surrogate_is_attacked_in_place_of_the_model():
    through = run(*BASE, "-a", "fgsm", "--eps-frame", "16/255", "--surrogate", "mine.py:model")
    assert through.exit_code == 0, through.output
    assert "tiny attacked through tiny on fake" in through.stdout
    planned = run(*BASE, "-a", "fgsm", "--surrogate", "mine.py:model", "--dry-run", "--json")
    assert json.loads(planned.stdout)["surrogate"] == "tiny"
    assert "no model named 'conv4d'" in fails(*BASE, "--surrogate", "conv4d")
    assert "takes 4 frames of 16×16 pixels" in fails(*BASE, "--surrogate", "mine.py:longer")
