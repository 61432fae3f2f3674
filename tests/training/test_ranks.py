"""Several processes under torchrun: they end with the same weights, also when one of them dies on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import robustvid as rv

TESTS = Path(__file__).parents[1]
WORKER = """
import os, sys
from dataclasses import replace
from pathlib import Path
from toys import Brightness, small_model
from robustvid.errors import DecodeError
from robustvid.models.classifier import weights_digest
from robustvid.training.loop import train
from robustvid.training.plan import TrainingPlan

out, dies = Path(sys.argv[1]), sys.argv[2] == "dies"
plan = TrainingPlan(epochs=3, batch_size=8, holdout=6, objective=sys.argv[3], threats=("linf frame 8/255",))
rank, asked = os.environ["RANK"], 0

class PartlyBroken(Brightness):
    def sample(self, index, clip):
        if index in (4, 8):  # each of them is only ever drawn by one of the processes
            raise DecodeError(f"{index}.mp4", "broken")
        return super().sample(index, clip)

def stop():
    global asked
    asked += 1
    if dies and rank == "1" and asked == 6 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(9)
    return False

data = PartlyBroken(count=35)
model = train(small_model(), data, plan, out=out / "run", stop=stop, save_every=0.0, on_error="skip")
(out / f"left_out.{rank}").write_text(str(model.card.lineage[-1]["left_out"]))
(out / f"digest.{rank}").write_text(weights_digest(model))
(out / f"restarts.{rank}").write_text(os.environ["TORCHELASTIC_RESTART_COUNT"])
"""


@pytest.mark.parametrize(
    ("dies", "objective"),
    [("lives", "trades:steps=1"), pytest.param("dies", "pgd:steps=2", marks=pytest.mark.slow)],
)
def test_two_processes_train_one_model(tmp_path, dies, objective):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, str(worker), str(tmp_path), dies, objective],
        capture_output=True,
        text=True,
        timeout=580,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = ((tmp_path / f"digest.{rank}").read_text() for rank in (0, 1))
    assert first == second
    listed = json.loads((tmp_path / "run" / "left_out.json").read_text())
    assert [line["file"] for line in listed] == ["4.mp4", "8.mp4"]
    assert (tmp_path / "left_out.0").read_text() == (tmp_path / "left_out.1").read_text()
    # Gloo does not always find its peers again at the first attempt, and torchrun then starts once more.
    restarts = int((tmp_path / "restarts.1").read_text())
    assert restarts >= 1 if dies == "dies" else restarts == 0
    assert rv.load_model(tmp_path / "run").card.weights_digest == first
