import subprocess
import sys

import pytest
import torch

from robustvid.contracts import ClipSpec, ModelCard
from robustvid.errors import ModelError, UnknownNameError
from robustvid.models import WEIGHTS, load_model, zoo
from robustvid.models.classifier import VideoClassifier, weights_digest

OWN = """
from torch import nn
from robustvid.contracts import ClipSpec, ModelCard
from robustvid.models.classifier import VideoClassifier

class Mean(nn.Module):
    def forward(self, clips):
        return clips.mean((2, 3, 4))

def build(name="mine"):
    return VideoClassifier(Mean(), ModelCard(name, "mine", ("r", "g", "b"), ClipSpec(8, 2, (16, 16))))

def bare():
    return Mean()

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "own_models.py"


def test_the_zoo_has_one_trained_model_of_each_architecture():
    assert {"conv3d", "frame_pool", "frame_rnn"} <= set(zoo())


@pytest.mark.parametrize("name", zoo())
def test_zoo_models(name):
    model = load_model(name)
    assert isinstance(model, VideoClassifier)
    assert not model.training
    assert model.card.name == name
    assert len(model.card.classes) == 10
    assert weights_digest(model) == model.card.weights_digest
    assert model.card.clip == ClipSpec(8, 2, (64, 64))
    assert model(torch.rand(1, 3, 8, 64, 64)).shape == (1, 10)
    assert (WEIGHTS / name / "weights.safetensors").stat().st_size < 2e6
    made = model.card.lineage[-1]
    compressed = f"python -m benchmarks.compression --only {name.removeprefix('conv3d-')} --ship"
    assert made["command"] in {f"python -m robustvid.training.zoo {name}", compressed}
    assert made["data"] == "motion10"
    assert len(made["data_digest"]) == 64


def test_unknown_names_get_help():
    with pytest.raises(UnknownNameError) as caught:
        load_model("conv3")
    assert "no model named 'conv3'" in str(caught.value)
    assert "Did you mean 'conv3d'?" in str(caught.value)
    assert "frame_pool" in str(caught.value)
    with pytest.raises(UnknownNameError, match="no such folder"):
        load_model("checkpoints/mine")


def test_zoo_models_take_no_options():
    with pytest.raises(ModelError, match="conv3d is a checkpoint and takes classes and num_classes, but got widths"):
        load_model("conv3d", widths=[1])


@pytest.mark.usefixtures("own")
def test_your_own_function():
    assert load_model("own_models:build").card.name == "mine"
    model = load_model("own_models:build", name="other")
    assert model.card.name == "other"
    assert not model.training


def test_your_own_file(own):
    model = load_model(f"{own}:build")
    assert model(torch.zeros(1, 3, 8, 16, 16)).shape == (1, 3)


@pytest.mark.usefixtures("own")
def test_own_functions_that_cannot_be_used():
    with pytest.raises(ModelError, match="returned Mean; robustvid wants a VideoClassifier"):
        load_model("own_models:bare")
    with pytest.raises(ModelError, match="own_models:number is int, not a function"):
        load_model("own_models:number")
    with pytest.raises(ModelError, match="unexpected keyword argument 'names'; its signature is"):
        load_model("own_models:build", names="x")
    with pytest.raises(UnknownNameError, match=r"has no 'biuld'\. Did you mean 'build'"):
        load_model("own_models:biuld")
    with pytest.raises(UnknownNameError, match="no module named"):
        load_model("no_such_package:build")
    with pytest.raises(UnknownNameError, match="no file"):
        load_model("nowhere.py:build")


def test_a_zoo_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "conv3d").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_model("conv3d").card.name == "conv3d"
    with pytest.raises(ModelError, match=r"has no card\.json"):
        load_model("./conv3d")


def test_importing_loads_no_torch():
    code = "import sys, robustvid.models as m; m.zoo(); m.ARCHITECTURES.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_card_without_statistics_leaves_pixels_alone():
    model = VideoClassifier(torch.nn.Identity(), ModelCard("x", "x", ("a", "b"), ClipSpec(1, 1, (2, 2))))
    clips = torch.rand(1, 3, 1, 2, 2)
    assert torch.equal(model(clips), clips)


def test_another_head_keeps_all_but_the_head(tmp_path, caplog):
    (tmp_path / "names.txt").write_text("grow\nshrink\nswing\n")
    usual, other = load_model("conv3d"), load_model("conv3d:classes=names.txt")
    assert other.card.classes == ("grow", "shrink", "swing")
    assert "network.head.weight and network.head.bias are not trained" in caplog.text
    assert other(torch.rand(2, 3, 8, 64, 64)).shape == (2, 3)
    for name, value in usual.state_dict().items():
        assert "head" in name or torch.equal(value, other.state_dict()[name])
    assert load_model("conv3d:num_classes=4").card.classes == ("0", "1", "2", "3")
