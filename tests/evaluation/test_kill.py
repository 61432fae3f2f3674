"""``kill -9`` at any moment loses nothing: the same command, with another batch size, ends with the same answers."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import robustvid as rv

SETTINGS = [
    "--clips",
    "24",
    "--mlflow",
    "off",
    "--norm",
    "linf",
    "--eps-frame",
    "1..8*2/255",
    "-a",
    "fgsm",
    "-a",
    "pgd:steps=6",
]
COMMAND = [sys.executable, "-m", "robustvid", "attack", *SETTINGS]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def answers(folder):
    return {
        (row.sample, row.attack, row.norm, row.eps_frame): (row.robust, row.margin) for row in rv.Results(folder).rows
    }


def kill_after_rows(folder, batch_size, rows):
    """Start the sweep and kill it once so many lines are in the journal."""
    process = subprocess.Popen(
        [*COMMAND, "--out", folder, "--batch-size", str(batch_size)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    journal = Path(folder) / "rows.jsonl"
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < rows):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_ten_times_and_resumed_with_other_batch_sizes():
    subprocess.run([*COMMAND, "--out", "whole"], check=True, capture_output=True, env=ENVIRONMENT)
    expected = answers("whole")
    rng = random.Random(0)
    for repetition in range(10):
        folder = f"killed{repetition}"
        kill_after_rows(folder, rng.choice([1, 3, 8, 64]), rng.randrange(1, len(expected)))
        torn = Path(folder) / "rows.jsonl"
        torn.write_bytes(torn.read_bytes()[: -rng.randrange(1, 60)])  # the disk may have kept half a line
        again = [*COMMAND, "--out", folder, "--batch-size", str(rng.choice([1, 5, 16]))]
        subprocess.run(again, check=True, capture_output=True, env=ENVIRONMENT)
        assert answers(folder) == expected
        assert rv.Results(folder).complete
