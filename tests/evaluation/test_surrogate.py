"""Attacks through a surrogate: one model is attacked, another one judges, and nothing else changes."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import robustvid as rv
from robustvid.errors import ModelError
from robustvid.evaluation.probe import Probe
from robustvid.evaluation.spec import read_spec, spec_key
from robustvid.models.classifier import VideoClassifier
from robustvid.reporting.mlflow_schema import params, run_name
from robustvid.reporting.page import repeat_command, write_report
from robustvid.testing import TinyVideoNet

BUDGETS = [rv.Budget("linf", f"{n}/255") for n in (4, 32)]
CLASSES = ("a", "b", "c", "d")


def classifier(seed=0, name="tiny", classes=CLASSES, clip=None, network=TinyVideoNet):
    card = rv.ModelCard(name, "tiny", classes, clip or rv.ClipSpec(4, 1, (16, 16)))
    return VideoClassifier(network(len(classes), seed), card)


def numbers(results):
    return [dataclasses.replace(row, seconds=0.0) for row in results.rows]


def step(model, clips, labels, budget, seeds):
    """One step up the gradient: one forward and one backward of what is attacked."""
    leaf = clips.clone().requires_grad_()
    with torch.enable_grad():
        loss = torch.nn.functional.cross_entropy(model(leaf), labels, reduction="sum")
    (grad,) = torch.autograd.grad(loss, leaf)
    return (clips + budget.steepest(grad)).clamp(0, 1)


def test_the_surrogate_is_attacked_and_the_model_judges(tiny_model, fake_videos):
    surrogate, seen = classifier(seed=1, name="stand-in"), []

    def watched(model, clips, labels, budget, seeds):
        seen.append(model)
        return step(model, clips, labels, budget, seeds)

    results = rv.evaluate(tiny_model, fake_videos, watched, BUDGETS, surrogate=surrogate, precision="exact")
    assert all(isinstance(probe, Probe) and probe.surrogate and probe.model is surrogate for probe in seen)
    clean, attacked = ([row for row in results.rows if (row.attack == "clean") is kind] for kind in (True, False))
    assert {(row.forwards, row.backwards) for row in clean} == {(1.0, 0.0)}
    assert {(row.forwards, row.backwards) for row in attacked} == {(2.0, 1.0)}  # the surrogate's step, the verdict
    clip, budget = fake_videos.sample(attacked[0].index, tiny_model.card.clip), rv.Budget("linf", attacked[0].eps_frame)
    pixels, label = clip.frames.permute(3, 0, 1, 2)[None] / 255, torch.tensor([clip.label])
    with rv.frozen(surrogate), rv.frozen(tiny_model), torch.no_grad():
        logits = tiny_model(step(surrogate, pixels, label, budget, None))[0]
    others = torch.cat([logits[: clip.label], logits[clip.label + 1 :]])
    assert attacked[0].margin == pytest.approx(float(logits[clip.label] - others.max()), abs=1e-4)


def test_attacks_spend_all_their_steps(tiny_model, fake_videos):
    results = rv.evaluate(
        tiny_model, fake_videos, "pgd:steps=5", BUDGETS[-1:], surrogate=classifier(seed=1), strategy="every"
    )
    costs = {(row.forwards, row.backwards) for row in results.rows if row.attack != "clean"}
    assert costs == {(7.0, 5.0)}


def test_another_model_is_harder_to_fool_than_the_attacked_one(tiny_model, fake_videos):
    correct = {}
    for seed in (0, 1):
        run = rv.evaluate(tiny_model, fake_videos, "mi-fgsm", BUDGETS, surrogate=classifier(seed))
        correct[seed] = run.curve()["correct"].tolist()
    white_box = rv.evaluate(tiny_model, fake_videos, "mi-fgsm", BUDGETS).curve()["correct"].tolist()
    assert correct[0][0] == correct[1][0] == white_box[0]  # the clean clips are the model's own
    assert correct[0] == white_box  # through itself an attack only goes further
    assert correct[1][-1] > correct[0][-1]


def test_both_models_come_back_as_they_were(tiny_model, fake_videos):
    surrogate = classifier(seed=1)
    for model in (tiny_model, surrogate):
        model.train()
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in (tiny_model, surrogate)]
    rv.evaluate(tiny_model, fake_videos, "fgsm", BUDGETS, surrogate=surrogate)
    for model, state in zip((tiny_model, surrogate), before, strict=True):
        assert model.training
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not hasattr(surrogate, "surrogate")


def test_the_batch_size_and_a_stop_change_nothing(tiny_model, fake_videos):
    arguments = (tiny_model, fake_videos, ["fgsm", "pgd:steps=3"], BUDGETS)
    whole = rv.evaluate(*arguments, surrogate=classifier(seed=1), out="run")
    before = sorted(numbers(whole), key=str)
    journal = Path("run/rows.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:20])
    again = rv.evaluate(*arguments, surrogate=classifier(seed=1), out="run", batch_size=5)
    assert again.complete
    assert sorted(numbers(again), key=str) == before


def test_the_spec_tells_runs_apart(tiny_model, fake_videos):
    specs = {}
    for name, surrogate in {
        "none": None,
        "one": classifier(seed=1, name="stand-in"),
        "other": classifier(seed=2, name="stand-in"),
    }.items():
        results = rv.evaluate(tiny_model, fake_videos, "fgsm", BUDGETS, limit=4, surrogate=surrogate)
        specs[name] = read_spec(results.folder)
    assert len({spec_key(spec) for spec in specs.values()}) == 3
    assert "surrogate" not in specs["none"]
    facts = specs["one"].pop("surrogate")
    assert specs["one"] == specs["none"]
    assert set(facts) == set(specs["none"]["model"])
    assert facts["name"] == "stand-in"
    assert facts["weights"] != specs["none"]["model"]["weights"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a", "b", "d", "c")}, "class 2 is 'c' for the model and 'd' for the surrogate"),
        ({"classes": ("a", "b", "c")}, "4 and 3 classes"),
        ({"clip": rv.ClipSpec(8, 1, (16, 16))}, "4 frames of 16×16 pixels, surrogate other 8 frames of 16×16"),
        ({"clip": rv.ClipSpec(4, 1, (16, 24))}, "surrogate other 4 frames of 16×24"),
    ],
)
def test_models_that_do_not_fit_are_refused(tiny_model, fake_videos, change, message):
    with pytest.raises(ModelError, match=message):
        rv.evaluate(tiny_model, fake_videos, "fgsm", BUDGETS, surrogate=classifier(name="other", **change))
    with pytest.raises(ModelError, match="no card"):
        rv.evaluate(tiny_model, fake_videos, "fgsm", BUDGETS, surrogate=TinyVideoNet(4))
    assert not Path("runs").exists()


def test_a_surrogate_of_another_stride_is_welcome(tiny_model, fake_videos):
    other = classifier(seed=1, clip=rv.ClipSpec(4, 2, (16, 16)))
    assert rv.evaluate(tiny_model, fake_videos, "fgsm", BUDGETS, limit=4, surrogate=other).complete


def test_the_model_needs_no_gradient_then(fake_videos):
    class Rounded(TinyVideoNet):
        def forward(self, clips):
            return super().forward(clips).detach()

    model = classifier(network=Rounded)
    flags = {
        name: [flag["flag"] for flag in rv.evaluate(model, fake_videos, attack, BUDGETS, surrogate=through).flags]
        for name, attack, through in (("alone", lambda m, x, *_: x, None), ("through", "fgsm", classifier(seed=1)))
    }
    assert flags == {"alone": ["no-gradient"], "through": []}


def test_which_attack_transfers_better_is_no_reason_for_doubt(tiny_model, fake_videos):
    """FGSM beats iterated attacks on another model often enough; on the attacked one it would be a flag."""

    def pgd(model, clips, labels, budget, seeds):
        return clips

    attacks = [dataclasses.replace(rv.load_attack("mi-fgsm"), name="fgsm"), rv.Attack("pgd", pgd, "mine:pgd")]
    through = {"none": None, "itself": classifier()}
    runs = {
        name: rv.evaluate(tiny_model, fake_videos, attacks, BUDGETS, surrogate=one) for name, one in through.items()
    }
    assert all(run.broken_by("linf-frame")["fgsm"][-1] for run in runs.values())
    flags = {name: [flag["flag"] for flag in run.flags] for name, run in runs.items()}
    assert flags == {"none": ["fgsm-beats-pgd"], "itself": []}


def test_every_report_names_both_models(tiny_model, fake_videos):
    results = rv.evaluate(
        tiny_model, fake_videos, "fgsm", BUDGETS, limit=6, surrogate=classifier(seed=1, name="stand-in")
    )
    assert results.subject == "tiny attacked through stand-in"
    assert results.summary()["surrogate"] == "stand-in"
    assert json.dumps(results.summary(), allow_nan=False)
    assert run_name(results) == "tiny through stand-in"
    assert params(results)["surrogate"] == "stand-in"
    assert 'surrogate=rv.load_model("stand-in")' in repeat_command(results)
    page = write_report(results).read_text()
    assert "<title>tiny attacked through stand-in on fake" in page
    assert "<dt>Surrogate</dt>" in page
    alone = rv.evaluate(tiny_model, fake_videos, "fgsm", BUDGETS, limit=6)
    assert (alone.subject, alone.surrogate, run_name(alone)) == ("tiny", None, "tiny")
    assert "surrogate" not in params(alone)
    assert "surrogate" not in write_report(alone).read_text().lower()
