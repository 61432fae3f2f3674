"""Networks of other conventions: axes, pathways, probabilities, outputs; and the example of the documentation."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import robustvid as rv
from robustvid.errors import ModelError
from robustvid.models.adapters import Adapted, slower_clips
from robustvid.testing import check_model

CLASSES = ("a", "b", "c", "d")


class TwoPathways(nn.Module):
    """Changes the list that it is given, as SlowFast does."""

    def __init__(self):
        super().__init__()
        self.slow, self.fast = nn.Conv3d(3, 4, (2, 3, 3)), nn.Conv3d(3, 4, (3, 3, 3))

    def forward(self, clips):
        slow, fast = clips
        assert slow.shape[2] * 4 == fast.shape[2]
        clips.clear()
        return self.slow(slow).mean((2, 3, 4)) + self.fast(fast).mean((2, 3, 4))


def classifier(network, frames=8):
    return rv.VideoClassifier(network, rv.ModelCard("own", "own", CLASSES, rv.ClipSpec(frames, 1, (16, 16)))).eval()


def test_pathways_are_cut_inside_the_graph():
    torch.manual_seed(0)
    check_model(classifier(Adapted(TwoPathways(), pathways=(4, 1))))


def test_slow_frames_are_those_of_pyslowfast():
    clips = torch.arange(32.0).view(1, 1, 32, 1, 1)
    assert slower_clips(clips, 4).flatten().tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    assert slower_clips(clips, 1) is clips


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv3d(3, 4, 3)

    def forward(self, clips):
        return self.body(clips).mean((2, 3, 4)).softmax(1)


def test_probabilities_are_refused_or_turned_back():
    torch.manual_seed(0)
    network = Probabilities()
    with pytest.raises(AssertionError, match="probabilities=True"):
        check_model(classifier(network))
    model = classifier(Adapted(network, probabilities=True))
    check_model(model)
    clips = torch.rand(2, 3, 8, 16, 16)
    assert torch.allclose(model(clips).softmax(1), network(clips), atol=1e-6)


class Swapped(nn.Module):
    def forward(self, pixels):
        assert pixels.shape[1:3] == (8, 3)
        return {"logits": pixels.mean((3, 4)).flatten(1)[:, :4] + pixels.mean((1, 2, 3, 4))[:, None]}


def test_axes_and_outputs_of_another_kind():
    check_model(classifier(Adapted(Swapped(), layout="BTCHW")))
    with pytest.raises(ModelError, match="returned list"):
        classifier(Adapted(nn.Sequential(Listed())))(torch.rand(1, 3, 8, 16, 16))
    with pytest.raises(ModelError, match="BCTHW or BTCHW"):
        Adapted(nn.Identity(), layout="BTHWC")


class Listed(nn.Module):
    def forward(self, clips):
        return [clips]


def test_the_example_of_the_documentation_runs():
    page = Path(__file__).parents[2] / "docs" / "models.md"
    example = re.search(r"```python\n# mine\.py\n(.*?)```", page.read_text(), re.DOTALL)[1]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    Path("mine.py").write_text(example)
    model = rv.load_model("mine.py:build")
    check_model(model)
