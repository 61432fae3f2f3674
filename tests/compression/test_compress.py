"""Compressed models: zeros are exact and stay, cut networks load again, exported graphs answer as torch does."""

from dataclasses import replace

import pytest
import torch
from toys import Brightness, small_model

from robustvid.budget import Budget
from robustvid.compression.compare import compare
from robustvid.compression.cost import size
from robustvid.compression.export import check_parity, export, parity
from robustvid.compression.prune import learn_masks, prunable, prune_channels, prune_weights, zeros
from robustvid.compression.quantise import with_rounding, without_rounding
from robustvid.data import load_data
from robustvid.data.batches import evaluation_batches
from robustvid.errors import ModelError
from robustvid.evaluation.cards import load_battery
from robustvid.models import ARCHITECTURES, load_model
from robustvid.models.checkpoint import save_checkpoint
from robustvid.models.classifier import new_classifier, weights_digest
from robustvid.training.loop import train
from robustvid.training.plan import TrainingPlan

CLIPS = torch.rand(3, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_share_of_zeros_is_the_one_asked_for(scope):
    assert zeros(prune_weights(load_model("conv3d"), 0.8, scope=scope)) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.usefixtures("deploy")
def test_removed_channels_are_gone_and_the_rest_loads_again(tmp_path):
    slim = prune_channels(load_model("conv3d"), 0.5)
    save_checkpoint(slim, tmp_path)
    again = load_model(tmp_path)
    assert sum(p.numel() for p in again.parameters()) < 230_114 / 3
    torch.testing.assert_close(again(CLIPS), slim(CLIPS))


CONVOLUTIONAL_HEAD = """
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(3, 16, 3, padding=1), nn.ReLU())
        self.head = nn.Conv3d(16, classes, 1)

    def forward(self, clips):
        return self.head(self.body(clips)).mean((2, 3, 4))
"""


@pytest.mark.usefixtures("deploy")
def test_channels_of_a_convolution_that_gives_the_logits_stay(tmp_path, monkeypatch):
    (tmp_path / "heads.py").write_text(CONVOLUTIONAL_HEAD)
    monkeypatch.setitem(ARCHITECTURES.targets, "convolutional-head", f"{tmp_path / 'heads.py'}:Net")
    card = replace(load_model("conv3d").card, arch="convolutional-head", options={})
    slim = prune_channels(new_classifier(card), 0.5)
    assert slim.network.body[0].out_channels == 8
    assert slim(CLIPS).shape == (3, len(card.classes))


@pytest.mark.usefixtures("deploy")
def test_a_graph_answers_as_torch_does_and_has_the_gradient_of_its_twin(tmp_path):
    model = load_model("conv3d")
    export(model, tmp_path / "graph")
    graph = load_model(tmp_path / "graph")
    check_parity(parity(graph, load_data("motion10", split="test"), 40), "float32")
    ours, theirs = CLIPS.clone().requires_grad_(), CLIPS.clone().requires_grad_()
    graph(ours)[:, 0].sum().backward()
    model(theirs)[:, 0].sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_zeros_stay_zero_while_the_rest_is_trained():
    pruned = prune_weights(small_model(), 0.5)
    before = [layer.weight == 0 for layer in prunable(pruned)]
    trained = train(pruned, Brightness(), TrainingPlan(2, batch_size=8, holdout=0, keep_zeros=True))
    after = [layer.weight == 0 for layer in prunable(trained)]
    assert all(bool((now[then]).all()) for then, now in zip(before, after, strict=True))
    assert weights_digest(trained) != weights_digest(pruned)


def test_learnt_masks_leave_the_kept_weights_alone():
    model, plan = small_model(), TrainingPlan(1, batch_size=8, holdout=0)
    pruned = learn_masks(model, Brightness(), 0.5, plan)
    assert zeros(pruned) == pytest.approx(0.5, abs=0.05)
    for ours, theirs in zip(prunable(pruned), prunable(model), strict=True):
        kept = ours.weight != 0
        assert torch.equal(ours.weight[kept], theirs.weight[kept])


def test_masks_of_another_amount_are_not_taken_for_these(tmp_path):
    model, plan = load_model("conv3d"), TrainingPlan(1, holdout=0)
    kept = prune_weights(model, 0.5)
    save_checkpoint(kept, tmp_path / "masks")
    with pytest.raises(ModelError, match="another model, amount or plan"):
        learn_masks(model, load_data("motion10", split="train"), 0.5, plan, out=tmp_path / "masks")


@pytest.mark.usefixtures("deploy")
def test_int8_is_a_quarter_and_answers_as_training_with_rounding_does(tmp_path):
    model, data = load_model("conv3d-pgd"), load_data("motion10", split="train")
    clips = torch.cat([clips for clips, _ in evaluation_batches(data, model.card.clip, 60)])
    graph = export(model, tmp_path / "int8", precision="int8", calibration=clips)
    check_parity(parity(graph, load_data("motion10", split="test"), 60), "int8")
    assert size(graph).megabytes < size(model).megabytes / 3
    rounded = with_rounding(model, clips)
    with torch.no_grad():
        assert torch.equal(rounded(clips).argmax(1), graph(clips).argmax(1))
        torch.testing.assert_close(without_rounding(rounded, model)(clips), model(clips))


@pytest.mark.usefixtures("deploy")
def test_another_byte_in_a_graph_is_refused(tmp_path):
    export(load_model("conv3d"), tmp_path / "graph")
    file = tmp_path / "graph" / "model.bin"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match="the card says"):
        load_model(tmp_path / "graph")


@pytest.mark.usefixtures("deploy")
def test_an_exported_graph_is_not_trained(tmp_path):
    graph = export(load_model("conv3d"), tmp_path / "graph")
    with pytest.raises(ModelError, match="cannot be trained"):
        train(graph, load_data("motion10", split="train"), TrainingPlan(1))


@pytest.mark.usefixtures("deploy")
def test_a_comparison_attacks_an_exported_graph_in_three_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = load_model("conv3d-pgd")
    models = {"before": model, "after": export(model, tmp_path / "graph")}
    budget, data = Budget("linf", "8/255"), load_data("motion10", split="test")
    before, after = compare(models, data, budget, battery=load_battery("quick"), limit=4)
    assert set(before.ways) == {"attacked"}
    assert set(after.ways) == {"attacked", "through its twin", "square"}
    assert after.robust <= min(after.ways.values())
    assert model.training is False
