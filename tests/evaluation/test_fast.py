"""A faster twin is taken where it agrees, and never decides alone."""

import json

import pytest
import torch

import robustvid as rv
from robustvid.errors import RobustvidError
from robustvid.evaluation import verdict
from robustvid.evaluation.fast import fastest
from robustvid.models.classifier import VideoClassifier
from robustvid.testing import TinyVideoNet

BUDGETS = [rv.Budget("linf", f"{n}/255") for n in (1, 4, 16)]
CLIPS = torch.rand(4, 3, 4, 16, 16)


class Stubborn(TinyVideoNet):
    """Looks into its own layers, as a model may."""

    def forward(self, clips):
        logits = super().forward(clips)
        return logits + self.features[1].running_mean.mean()


class Fickle(TinyVideoNet):
    """Answers otherwise without its BatchNorm."""

    def forward(self, clips):
        return super().forward(clips) * (1 if hasattr(self.features[1], "running_mean") else 1.5)


def classifier(network, tiny_model):
    return VideoClassifier(network, tiny_model.card).eval()


def test_a_twin_is_taken_only_where_it_works_and_agrees(tiny_model):
    twin = fastest(tiny_model.eval(), CLIPS)
    assert twin.model is not tiny_model
    assert twin.facts["path"] == "folded, channels last"
    for network, why in ((Stubborn(4, seed=0), "it fails"), (Fickle(4, seed=0), "answers otherwise")):
        model = classifier(network, tiny_model)
        choice = fastest(model, CLIPS)
        assert choice.model is model
        assert why in choice.facts["why"]


def test_the_path_is_noted_and_fast_and_exact_agree(tiny_model, fake_videos):
    exact, fast = (
        rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", BUDGETS, precision=name) for name in ("exact", "fast")
    )
    assert fast.curve()["correct"].tolist() == exact.curve()["correct"].tolist()
    assert json.loads((fast.folder / "path.json").read_text())["path"] == "folded, channels last"
    assert not (exact.folder / "path.json").exists()
    assert fast.key != exact.key


def test_clips_that_only_the_twin_takes_for_broken_are_attacked_again(tiny_model, fake_videos, monkeypatch):
    plain = rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", BUDGETS, precision="exact")
    monkeypatch.setattr(verdict, "AGREEMENT", 1e9)  # every clip that stands might be one of them
    again = rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", BUDGETS, out="again")
    found = [[(row.sample, row.eps_frame, row.robust) for row in run.rows] for run in (plain, again)]
    assert found[0] == found[1]
    exact = {(row.sample, row.eps_frame): row.margin for row in plain.rows if row.robust}
    assert all(exact[row.sample, row.eps_frame] == row.margin for row in again.rows if row.robust)
    assert again.summary()["cost"]["forwards"] > plain.summary()["cost"]["forwards"]


def test_nonsense_is_refused(tiny_model, fake_videos):
    with pytest.raises(RobustvidError, match="Did you mean 'exact'"):
        rv.evaluate(tiny_model, fake_videos, "fgsm", BUDGETS, precision="exakt")
