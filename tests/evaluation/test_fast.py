"""A faster twin is taken where it agrees, and never decides alone."""

import json

import pytest
import torch

import robustvid as rv
from robustvid.errors import RobustvidError
from robustvid.evaluation import fast, verdict
from robustvid.evaluation.fast import fastest, in_bf16
from robustvid.evaluation.probe import Probe
from robustvid.evaluation.verdict import load_clip
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


class Lowered(TinyVideoNet):
    """Does something of its own under autocast, and counts how often it was asked there."""

    asked = 0

    def forward(self, clips):
        logits = super().forward(clips)
        if not torch.is_autocast_enabled("cpu"):
            return logits
        type(self).asked += 1
        return self.lowered(logits.float())

    def lowered(self, logits):
        return logits


class Louder(Lowered):
    def lowered(self, logits):
        return logits * 1.5


class Turned(Lowered):
    """Gives the same logits, and the gradient of others."""

    def lowered(self, logits):
        return 2 * logits.detach() - logits


class Broken(Lowered):
    def lowered(self, logits):
        raise NotImplementedError("no bfloat16 here")


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


class Counted(TinyVideoNet):
    """Counts calls, its own and those of its twins."""

    asked = 0

    def forward(self, clips):
        type(self).asked += 1
        return super().forward(clips)


@pytest.mark.parametrize(("precision", "calls"), [("exact", 1), ("fast", 2), ("bf16", 3)])
def test_a_slow_model_is_asked_once_before_it_is_chosen(tiny_model, fake_videos, monkeypatch, precision, calls):
    monkeypatch.setattr(fast, "_ENOUGH", 0.0)
    model = classifier(Counted(4, seed=0), tiny_model)
    judge = verdict.Judge(Probe(model, 8), torch.device("cpu"), seed=0, batch_size=8)
    clips = [load_clip(fake_videos, index, model.card.clip) for index in range(3)]
    Counted.asked = 0
    facts = judge.settle(clips, precision)
    assert Counted.asked == calls
    assert bool(facts) == (precision != "exact")


def test_a_model_without_gradient_is_not_asked_for_one_in_bfloat16(tiny_model):
    class Detached(TinyVideoNet):
        def forward(self, clips):
            return super().forward(clips.detach()).detach()

    choice = fastest(classifier(Detached(4, seed=0), tiny_model), CLIPS)
    assert choice.answer.grad is None
    assert in_bf16(choice, CLIPS).facts["not_bf16"] == "there is no gradient to climb"


@pytest.fixture
def patient(monkeypatch):
    """Take bfloat16 wherever it agrees: how fast it is depends on the processor."""
    monkeypatch.setattr(fast, "_SLOWER", float("inf"))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("kind", "why"),
    [(Lowered, None), (Louder, "answers otherwise"), (Turned, "a cosine of -"), (Broken, "it fails: no bfloat16 here")],
)
def test_bfloat16_is_taken_only_where_it_works_and_agrees(tiny_model, kind, why):
    choice = fastest(classifier(kind(4, seed=0), tiny_model), CLIPS)
    lower = in_bf16(choice, CLIPS)
    assert (lower.model is choice.model) == (why is not None)
    assert why is None or why in lower.facts["not_bf16"]
    assert lower.facts["path"] == "folded, channels last" + ("" if why else ", bfloat16")


def test_bfloat16_is_not_taken_where_it_is_slower(tiny_model, monkeypatch):
    choice = fastest(tiny_model.eval(), CLIPS)
    monkeypatch.setattr(fast, "_SLOWER", 0)
    assert "times as long" in in_bf16(choice, CLIPS).facts["not_bf16"]


@pytest.mark.usefixtures("patient")
def test_verdicts_on_attacks_in_bfloat16_are_the_models_own(tiny_model, fake_videos):
    run = rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", BUDGETS, precision="bf16", keep=40)
    assert json.loads((run.folder / "path.json").read_text())["path"].endswith("bfloat16")
    exact = rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", BUDGETS, precision="exact")
    assert abs(run.curve()["correct"] - exact.curve()["correct"]).max() <= 1  # of 8, at each radius
    for kept in run.clips():
        with torch.no_grad():
            assert int(tiny_model.eval()(kept.adversarial[None]).argmax()) == kept.row["predicted"]


@pytest.mark.usefixtures("patient")
def test_attacks_that_compare_logits_are_not_given_bfloat16(tiny_model, fake_videos, monkeypatch):
    monkeypatch.setattr(fast, "_ROUNDS", 1)
    asked = {}
    for attack in ("square:queries=20", "pgd:steps=5"):
        Lowered.asked = 0
        model = classifier(Lowered(4, seed=0), tiny_model)
        rv.evaluate(model, fake_videos, attack, BUDGETS, precision="bf16", out=attack.partition(":")[0])
        asked[attack] = Lowered.asked
    begin = 1 + 3 + 1  # the round that times it, those that choose the number of threads, the look at zero gradients
    assert asked["square:queries=20"] <= begin
    assert asked["pgd:steps=5"] > begin + 5


def test_nonsense_is_refused(tiny_model, fake_videos):
    with pytest.raises(RobustvidError, match="Did you mean 'exact'"):
        rv.evaluate(tiny_model, fake_videos, "fgsm", BUDGETS, precision="exakt")
