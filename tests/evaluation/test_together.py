"""Several processes under torchrun that measure one run: they find what one finds, also when one of them dies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import robustvid as rv
from robustvid.evaluation.journal import read_rows

ATTACK = ["robustvid", "attack", "--clips", "40", "--mlflow", "off", "--norm", "linf", "--eps-frame", "1..8*2/255"]
SETTINGS = [*ATTACK, "--audit", "0.5", "-a", "fgsm", "-a", "pgd:steps=3"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
DIES = """
import itertools, os, sys
import robustvid as rv
from robustvid.ranks import joined

asked = itertools.count()

def progress(told):
    if ranks.rank == 1 and next(asked) == 4:
        os._exit(9)

with joined("cpu") as ranks:
    budgets = [rv.Budget("linf", f"{n}/255") for n in (1, 2, 4, 8)]
    model, data, attacks = rv.load_model("conv3d"), rv.load_data("motion10"), ["fgsm", "pgd:steps=3"]
    rv.evaluate(model, data, attacks, budgets, limit=40, audit=0.5, out=sys.argv[1], progress=progress, ranks=ranks)
"""
PARTLY_BROKEN = """
import sys
import robustvid as rv
from robustvid.errors import DecodeError
from robustvid.evaluation.sweep import choose_clips
from robustvid.ranks import joined
from toys import Brightness, small_model

class PartlyBroken(Brightness):
    order = choose_clips(40, None, 0)

    def sample(self, index, clip):
        if self.order.index(index) in (1, 17, 20):  # the second process meets two of them, the first one
            raise DecodeError(f"{index}.mp4", "broken")
        return super().sample(index, clip)

with joined("cpu") as ranks:
    budgets = [rv.Budget("linf", f"{n}/255") for n in (8, 32)]
    data = PartlyBroken("test", count=40)
    results = rv.evaluate(small_model(), data, "fgsm", budgets, on_error="skip", out=sys.argv[1], ranks=ranks)
    assert results.complete and results.n == 37, results.n
"""


def run_worker(folder, source):
    worker = folder / "worker.py"
    worker.write_text(source)
    return subprocess.run(
        [*TORCHRUN[:-1], str(worker), str(folder / "run")],
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )


def measure(out, *, launcher=(sys.executable, "-m")):
    command = [*launcher, *SETTINGS, "--json", "--out", out]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False)


def answers(out, name="rows.jsonl"):
    return {
        (row.index, row.attack, row.eps_frame): (row.robust, row.predicted, row.margin, row.size, row.linf)
        for row in read_rows(out / name)
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    done = measure(out)
    assert done.returncode == 0, done.stderr
    return out


def test_two_processes_find_what_one_finds(alone, tmp_path):
    """Bit for bit, with the same searches: the second wave is ordered by what both found in the first."""
    out = tmp_path / "run"
    done = measure(out, launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert answers(out) == answers(alone)
    assert len(answers(out, "audit.jsonl")) > 0
    assert answers(out, "audit.jsonl") == answers(alone, "audit.jsonl")
    results, one = rv.Results(out), rv.Results(alone)
    assert results.complete
    assert results.verdicts("linf-frame").equals(one.verdicts("linf-frame"))
    assert results.broken_by("linf-frame") == one.broken_by("linf-frame")
    files = {path.relative_to(alone) for path in alone.rglob("*") if path.is_file()}
    assert {path.relative_to(out) for path in out.rglob("*") if path.is_file()} == files
    told = json.loads(done.stdout)  # one of them talks
    assert told["curves"] == json.loads((alone / "summary.json").read_text())["curves"]


@pytest.mark.slow
def test_one_dies_and_one_process_goes_on_alone(alone, tmp_path):
    out, done = tmp_path / "run", run_worker(tmp_path, DIES)
    assert "exitcode  : 9" in done.stderr, done.stderr[-3000:]
    assert not (out / "rows.jsonl").read_bytes()
    kept = answers(out)
    assert {len({row.index for row in read_rows(out / f"rows.{rank}.jsonl")}) > 0 for rank in (0, 1)} == {True}
    assert 0 < rv.Results(out).n < 40
    assert measure(out).returncode == 0
    assert answers(out) == answers(alone)
    assert kept.items() <= answers(out).items()
    assert sorted(path.name for path in out.glob("*.jsonl")) == ["audit.jsonl", "rows.jsonl"]


def test_what_any_of_them_cannot_read_is_left_out(tmp_path):
    done = run_worker(tmp_path, PARTLY_BROKEN)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(rv.Results(tmp_path / "run").left_out) == 3
