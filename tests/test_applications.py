"""docs/applications.md runs as it is written, on few clips and with few epochs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from robustvid.data.motion10 import FOLDER, build

PAGE = Path(__file__).parents[1] / "docs" / "applications.md"
SMALL = {"CLIPS": "2", "BATTERY": "quick", "EPOCHS": "1", "OMP_NUM_THREADS": "1"}
OFF = {f"ROBUSTVID_{name}_MLFLOW": "off" for name in ("ATTACK", "TRAIN_ADV", "COMPRESS_QUANTISE")}


def test_the_four_uses_run_as_they_are_written(tmp_path):
    pytest.importorskip("nncf", reason="int8 needs the extra deploy")
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    script = "\n".join(blocks).replace("--attack universal", "--attack universal:epochs=1,training_clips=16")
    build(tmp_path / "demo" / FOLDER, {"train": 4, "test": 2})
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script],
        env=os.environ | SMALL | OFF | {"PATH": path},
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert any(one.get("alarms") == ["left"] for one in seen)
    assert list(tmp_path.glob("events/*-left.mp4"))
    assert "spin_cw" in done.stdout
    assert (tmp_path / "runs" / "edge" / "twin").is_dir()
