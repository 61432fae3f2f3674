"""Every red flag is raised by a model that deserves it, and by no other."""

import dataclasses

import pytest
import torch
from fakes import FakeVideos
from torch import nn

import robustvid as rv
from robustvid.evaluation.audit import audit_results
from robustvid.models.classifier import VideoClassifier
from robustvid.testing import TinyVideoNet

LINF = [rv.Budget("linf", "1/255")]


class Noisy(TinyVideoNet):
    def forward(self, clips):
        return super().forward(clips) + torch.randn(len(clips), 4)


class Probabilities(TinyVideoNet):
    def forward(self, clips):
        return super().forward(clips).softmax(1)


class Company(TinyVideoNet):
    def forward(self, clips):
        return super().forward(clips - clips[:1])


class Mean(TinyVideoNet):
    def forward(self, clips):
        return super().forward(clips - clips.mean(0, keepdim=True) + 0.5)


class NoGraph(TinyVideoNet):
    @torch.no_grad()
    def forward(self, clips):
        return super().forward(clips)


class Quantised(TinyVideoNet):
    def forward(self, clips):
        return super().forward((clips * 16).round() / 16)


class LastFrameOnly(TinyVideoNet):
    def forward(self, clips):
        return super().forward(clips[:, :, -1:])


class Stubborn(TinyVideoNet):
    def train(self, mode=True):
        super().train(mode)
        self.features[1].training = True
        return self


class Detached(TinyVideoNet):
    def forward(self, clips):
        return super().forward(clips.detach())


@pytest.mark.parametrize(
    ("network", "flag"),
    [
        (TinyVideoNet, None),
        (Noisy, "random-output"),
        (Probabilities, "probabilities"),
        (Company, "batch-dependent"),
        (Mean, "batch-dependent"),
        (NoGraph, "no-gradient"),
        (Quantised, "no-gradient"),
        (LastFrameOnly, "no-gradient"),
        (Detached, "no-gradient"),
        (Stubborn, "training-mode"),
    ],
)
def test_model_flags(tiny_model, fake_videos, network, flag):
    model = VideoClassifier(network(4), tiny_model.card)

    def unchanged(model, clips, labels, budget, seeds):
        return clips

    names = {found["flag"] for found in rv.evaluate(model, fake_videos, [unchanged], LINF).flags}
    assert flag in names if flag else not names - {"no-better-than-chance"}


def test_fgsm_that_beats_pgd_is_flagged(tiny_model, fake_videos):
    broken = {"linf-frame": {"fgsm": [1, 5], "pgd": [2, 4]}}
    assert [flag["flag"] for flag in audit_results({"lo": 0.8, "hi": 0.9}, 0.1, broken, {})] == ["fgsm-beats-pgd"]
    assert audit_results({"lo": 0.8, "hi": 0.9}, 0.1, {"linf-frame": {"fgsm": [1, 4], "pgd": [2, 4]}}, {}) == []


def test_a_model_that_guesses_is_flagged(tiny_model):
    class Guessed(FakeVideos):
        def sample(self, index, clip):
            return super().sample(index, clip)._replace(label=index % 4)

    constant = VideoClassifier(TinyVideoNet(4), tiny_model.card)
    nn.init.zeros_(constant.network.head.weight)
    nn.init.constant_(constant.network.head.bias[:1], 1.0)
    names = {found["flag"] for found in rv.evaluate(constant, Guessed(tiny_model), "fgsm", LINF).flags}
    assert "no-better-than-chance" in names


def test_an_attack_without_gradients_that_wins_is_flagged(tiny_model, fake_videos):
    """A white-box attack that does nothing beside a score attack that works: what a masked gradient looks like."""
    budgets = [rv.Budget("linf", 0.5)]

    def evaluate(blind):
        seeing = dataclasses.replace(rv.load_attack("pgd"), name="seeing", version=7, access="score")
        gradient = dataclasses.replace(rv.load_attack("fgsm" if blind else "apgd-ce"), access="white-box")
        if blind:
            gradient = dataclasses.replace(gradient, name="blind", function=lambda *inputs: inputs[1], params={})
        results = rv.evaluate(tiny_model, fake_videos, [gradient, seeing], budgets)
        assert results.curve().correct.iloc[-1] < results.curve().correct.iloc[0] - 2
        return {flag["flag"] for flag in results.flags}

    assert "black-box-beats-white-box" in evaluate(blind=True)
    assert "black-box-beats-white-box" not in evaluate(blind=False)


def test_one_clip_of_a_hundred_may_be_luck():
    for cells, flagged in [([(1, 100)], False), ([(2, 100)], True), ([(2, 2000)], False), ([(0, 9), (3, 9)], True)]:
        found = audit_results({"lo": 0.8, "hi": 0.9}, 0.1, {}, {"l2-clip": cells})
        assert [flag["flag"] for flag in found] == ["black-box-beats-white-box"] * flagged
