"""Compressed models: zeros are exact and stay, cut networks load again, exported graphs answer as torch does."""

import pytest
import torch

from robustvid.compression.export import check_parity, export, parity
from robustvid.compression.prune import prune_channels, prune_weights, zeros
from robustvid.data import load_data
from robustvid.models import load_model
from robustvid.models.checkpoint import save_checkpoint

CLIPS = torch.rand(3, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_share_of_zeros_is_the_one_asked_for(scope):
    assert zeros(prune_weights(load_model("conv3d"), 0.8, scope=scope)) == pytest.approx(0.8, abs=1e-3)


def test_removed_channels_are_gone_and_the_rest_loads_again(tmp_path):
    slim = prune_channels(load_model("conv3d"), 0.5)
    save_checkpoint(slim, tmp_path)
    again = load_model(tmp_path)
    assert sum(p.numel() for p in again.parameters()) < 230_114 / 3
    torch.testing.assert_close(again(CLIPS), slim(CLIPS))


def test_a_graph_answers_as_torch_does_and_has_the_gradient_of_its_twin(tmp_path):
    model = load_model("conv3d")
    export(model, tmp_path / "graph")
    graph = load_model(tmp_path / "graph")
    check_parity(parity(graph, load_data("motion10", split="test"), 40), "float32")
    ours, theirs = CLIPS.clone().requires_grad_(), CLIPS.clone().requires_grad_()
    graph(ours)[:, 0].sum().backward()
    model(theirs)[:, 0].sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
