"""The public checks pass what is right and name what is wrong."""

import pytest
import torch
from fakes import FakeVideos

import robustvid as rv
from robustvid.attacks.fgsm import fgsm
from robustvid.errors import BudgetError
from robustvid.models.classifier import VideoClassifier
from robustvid.testing import TinyVideoNet, check_attack, check_dataset, check_model

ONE = {"budgets": [rv.Budget("linf", "8/255")], "classes": [3], "shapes": [(4, 12, 16)]}


def too_far(model, clips, labels, budget, seeds):
    return (clips + 0.05).clamp(0, 1)


def unclamped(model, clips, labels, budget, seeds):
    return clips + 2


def in_place(model, clips, labels, budget, seeds):
    return clips.add_(budget.steepest(torch.ones_like(clips))).clamp_(0, 1)


def unseeded(model, clips, labels, budget, seeds):
    return (clips + budget.project(torch.randn_like(clips))).clamp(0, 1)


def company(model, clips, labels, budget, seeds):
    return (clips + budget.steepest(clips - clips.mean(0))).clamp(0, 1)


def trains(model, clips, labels, budget, seeds):
    model.train()
    model(clips)
    return clips


def halves(model, clips, labels, budget, seeds):
    return clips.half()


def refuses(model, clips, labels, budget, seeds):
    raise BudgetError("no")


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (too_far, "times the size of the budget"),
        (unclamped, r"leaves \[0, 1\]"),
        (in_place, "changed its inputs"),
        (unseeded, "the same seeds gave another result"),
        (company, "other clips of the batch|batch of 8"),
        (trains, "changed the model"),
        (halves, "float16"),
        (refuses, "refused every budget"),
    ],
)
def test_a_bad_attack_is_named(attack, message):
    with pytest.raises(AssertionError, match=message):
        check_attack(attack, **ONE)


def test_a_good_attack_passes():
    check_attack(fgsm, **ONE)


def network(change):
    class Changed(TinyVideoNet):
        def forward(self, clips):
            return change(super().forward(clips), clips)

    return Changed(4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits, clips: logits.softmax(1), "probabilities"),
        (lambda logits, clips: logits + torch.rand_like(logits), "second time"),
        (lambda logits, clips: logits - logits.mean(0) + 0.1 * logits, "depend on the other clips"),
        (lambda logits, clips: logits[:, :3], "3 logits for 4 classes"),
        (lambda logits, clips: logits * 0 + clips[:, 0, -1].mean((1, 2))[:, None], "no gradient reaches frames"),
    ],
)
def test_a_bad_model_is_named(tiny_model, change, message):
    with pytest.raises(AssertionError, match=message):
        check_model(VideoClassifier(network(change), tiny_model.card))


def test_good_models_pass(tiny_model):
    check_model(tiny_model)
    with pytest.raises(AssertionError, match=r"model\.card"):
        check_model(tiny_model.network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 9}, "label 9 of 4"),
        ({"id": "same"}, "the same id"),
        ({"frames": torch.zeros(4, 32, 32, 3)}, "uint8"),
        ({"frames": torch.zeros(4, 3, 32, 32, dtype=torch.uint8)}, r"not \(4, 32, 32, 3\)"),
    ],
)
def test_a_bad_dataset_is_named(tiny_model, change, message):
    class Changed(FakeVideos):
        def sample(self, index, clip):
            return super().sample(index, clip)._replace(**change)

    with pytest.raises(AssertionError, match=message):
        check_dataset(Changed(tiny_model))
    check_dataset(FakeVideos(tiny_model))
