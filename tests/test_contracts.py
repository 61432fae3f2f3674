"""Clips are checked in words that help; a model that was lent comes back bit for bit."""

import random

import numpy as np
import pytest
import torch

import robustvid as rv
from robustvid.contracts import check_clips, check_labels, check_logits, clip_seed
from robustvid.errors import ClipError
from robustvid.testing import TinyVideoNet


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (torch.rand(2, 8, 3, 16, 16), r"permute\(0, 2, 1, 3, 4\)"),
        (torch.rand(2, 8, 16, 16, 3), r"permute\(0, 4, 1, 2, 3\)"),
        (torch.rand(3, 8, 16, 16), "4 axes"),
        (torch.rand(2, 3, 4, 8, 8) * 255, "divide by 255"),
        (torch.rand(2, 3, 4, 8, 8) - 0.5, "clamp or rescale"),
        (torch.full((1, 3, 2, 4, 4), float("nan")), "nan"),
        (torch.zeros(1, 3, 2, 4, 4, dtype=torch.uint8), "uint8"),
        (torch.rand(0, 3, 2, 4, 4), "empty"),
    ],
)
def test_wrong_clips_are_refused_with_the_remedy(clips, message):
    with pytest.raises(ClipError, match=message):
        check_clips(clips)


def test_labels_and_logits():
    clips = torch.rand(2, 3, 2, 4, 4)
    with pytest.raises(ClipError, match="int64"):
        check_labels(torch.zeros(2), clips)
    for logits in ([1, 2], torch.rand(3, 4), torch.rand(2, 1), torch.full((2, 3), float("inf"))):
        with pytest.raises(ClipError, match="the model returned"):
            check_logits(logits, clips)


def test_seeds_belong_to_run_clip_and_card():
    seeds = {clip_seed(run, clip, card) for run in (0, 1) for clip in ("a", "b") for card in ("x", "y")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def _snapshot(model):
    return (
        [module.training for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [buffer.clone() for buffer in model.buffers()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        random.getstate(),
    )


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool((a == b).all())
    if isinstance(a, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def _mixed_model():
    """A model in a state that a careless attack would not restore."""
    model = TinyVideoNet(4)
    model.train()
    model.features[1].eval()
    model.head.weight.requires_grad_(False)
    model.features[0].weight.grad = torch.ones_like(model.features[0].weight)
    return model


def _careless(model, clips, labels, budget, seeds):
    """An attack that leaves traces everywhere it can."""
    model.train()
    model.requires_grad_(True)
    model(clips)
    model.features[1].running_mean = model.features[1].running_mean + 1
    model.head.bias = torch.nn.Parameter(model.head.bias + 1)
    torch.set_grad_enabled(True)
    random.random()
    np.random.rand()
    torch.manual_seed(3)
    leaf = clips.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model(leaf), labels).backward()
    model.features[0].weight.grad.zero_()
    return clips


def _failing(model, clips, labels, budget, seeds):
    _careless(model, clips, labels, budget, seeds)
    raise ZeroDivisionError


@pytest.mark.parametrize("name", ["fgsm", "pgd", "mi-fgsm", "careless", "failing"])
def test_the_model_comes_back_bit_for_bit(name):
    model = _mixed_model()
    clips, labels = torch.rand(2, 3, 4, 16, 16), torch.tensor([0, 1])
    before = _snapshot(model)
    own = {"careless": _careless, "failing": _failing}
    from robustvid.evaluation.cards import as_attack

    attack = as_attack(own[name]) if name in own else rv.load_attack(name)
    if name == "failing":
        with pytest.raises(ZeroDivisionError):
            attack(model, clips, labels, rv.Budget("linf", "8/255"), torch.arange(2))
    else:
        attack(model, clips, labels, rv.Budget("linf", "8/255"), torch.arange(2))
    after = _snapshot(model)
    assert all(_same(a, b) for a, b in zip(before, after, strict=True))
