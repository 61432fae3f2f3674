"""The recipes run as they are written, on small trees in the official layouts and with small models."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import miniatures
import pytest

from robustvid.evaluation.results import Results

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
SMALL = {"EPOCHS": "1", "BATCH": "8", "HOLDOUT": "2", "CLIPS": "3", "PRECISION": "fp32"}


def run(recipe, **variables):
    blocks = re.findall(r"```bash\n(.*?)```", (RECIPES / recipe).read_text(), re.DOTALL)
    assert len(blocks) == 5
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = (
        os.environ | SMALL | variables | {"PATH": path, "OMP_NUM_THREADS": "1", "ROBUSTVID_ATTACK_MLFLOW": "off"}
    )
    environment |= {"ROBUSTVID_TRAIN_ADV_MLFLOW": "off"}
    done = subprocess.run(
        ["bash", "-euc", "\n".join(blocks)], env=environment, capture_output=True, text=True, check=False, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [Results(spec.parent) for spec in sorted(Path("runs").glob("*/spec.json"))]


def check(results, dataset, classes, battery):
    assert sorted(f"{result.spec['model']['name']} {result.threats[0]}" for result in results) == sorted(
        f"{name} {threat}"
        for name in {result.spec["model"]["name"] for result in results}
        for threat in ("linf-frame", "l2-clip")
    )
    assert len(results) == 4
    for result in results:
        assert result.complete
        assert result.spec["battery"].startswith(battery)
        assert (result.spec["data"]["name"], result.n) == (dataset, 3)
        assert tuple(result.spec["model"]["classes"]) == classes
    assert json.loads(Path(f"{dataset}-videos.json").read_text())["leaks"] == []


@pytest.mark.slow
def test_r3d_18_on_ucf101(tmp_path):
    root = miniatures.ucf101(tmp_path / "ucf101", train=4, test=2)
    start = "torchvision:mc3_18:weights=random,frames=4,size=32,num_classes=5"
    found = run("r3d_18.md", ROOT=str(root), CLASSES="5", START=start)
    check(found, "ucf101", miniatures.UCF_CLASSES, "standard")


@pytest.mark.parametrize("battery", ["quick", pytest.param("standard", marks=pytest.mark.slow)])
def test_videomae_on_hmdb51(tmp_path, battery):
    transformers = pytest.importorskip("transformers", reason="VideoMAE needs transformers")
    root = miniatures.hmdb51(tmp_path / "hmdb51", train=5, test=3)
    settings = {"num_frames": 4, "image_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.VideoMAEConfig(**settings, intermediate_size=32, num_labels=4)
    transformers.VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "videomae")
    (tmp_path / "videomae" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    start = f"hf:{tmp_path / 'videomae'}:num_classes=3"
    found = run("videomae.md", DATASET="hmdb51", ROOT=str(root), CLASSES="3", START=start, BATTERY=battery)
    check(found, "hmdb51", ("brush_hair", "cartwheel", "catch"), battery)
