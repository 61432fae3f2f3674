"""Attacks that are fitted before they are measured: once for each budget, kept in the run folder, on other clips."""

import functools
import json
import logging
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fakes import FakeVideos
from safetensors.torch import load_file, save_file

import robustvid as rv
from robustvid.attacks.universal import fit_universal, universal
from robustvid.cli.main import main
from robustvid.errors import AttackError, ModelError
from robustvid.evaluation.fitting import fitted
from robustvid.evaluation.spec import read_spec
from robustvid.evaluation.sweep import plan_attacks
from robustvid.models.classifier import VideoClassifier
from robustvid.testing import TinyVideoNet

BUDGETS = [rv.Budget("linf", f"{n}/255") for n in (4, 16, 64)]
CARD = "universal:epochs=2,batch_size=4,training_clips=10"


class TrainVideos(FakeVideos):
    """Other clips than those measured."""

    split = "train"

    def sample(self, index, clip):
        return super().sample(index + 1000, clip)


@pytest.fixture
def training(tiny_model):
    return TrainVideos(tiny_model, count=14)


@pytest.fixture
def fits(monkeypatch):
    """What was fitted: the models and budgets."""
    seen = []

    @functools.wraps(fit_universal)
    def counted(model, clips, labels, budget, **settings):
        assert len(clips) == 10
        assert clips.dtype == torch.uint8
        seen.append((model.model, budget.describe()))
        return fit_universal(model, clips, labels, budget, **settings)

    monkeypatch.setattr(universal, "fit", counted)
    return seen


def files():
    return {path.name: path for path in Path("run/perturbations").iterdir()}


def verdicts(results):
    return sorted((row.sample, row.eps_frame or "", row.robust, row.margin) for row in results.rows)


def test_one_fit_for_each_budget_and_the_same_perturbation_for_every_clip(tiny_model, fake_videos, training, fits):
    results = rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS, training=training, out="run", strategy="every")
    assert results.complete
    assert [budget for _, budget in fits] == [budget.describe() for budget in BUDGETS]
    stem = "universal_batch_size_4_epochs_2_training_clips_10-linf-frame-linf_frame_"
    assert set(files()) == {f"{stem}{n}_255.safetensors" for n in (4, 16, 64)}
    kept = list(results.clips())
    assert kept
    for clip in kept:
        eps = clip.row["eps_frame"].replace("/", "_")
        delta = load_file(files()[f"{stem}{eps}.safetensors"])["delta"]
        clean = clip.clean[None].float() / 255
        torch.testing.assert_close(clip.adversarial[None], (clean + delta).clamp(0, 1), rtol=0, atol=1e-6)
    assert bool((results.frame()["size"] <= 1).all())
    attacked = [row for row in results.rows if row.attack != "clean"]
    assert sum(row.backwards for row in attacked) == pytest.approx(3 * 2 * 10)  # fits are paid for by first batches
    assert results.cost["forwards"] == len(results.rows) + 3 * 2 * 10


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_changes_nothing(tiny_model, fake_videos, training, batch_size):
    one = rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS, training=training, out="one")
    other = rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS, training=training, out="other", batch_size=batch_size)
    assert verdicts(one) == verdicts(other)


def test_going_on_uses_what_was_fitted(tiny_model, fake_videos, training, fits):
    whole = rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS, training=training, out="run")
    before, content = len(fits), {name: path.read_bytes() for name, path in files().items()}
    journal = Path("run/rows.jsonl")
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:30]))
    again = rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS, training=training, out="run")
    assert len(fits) == before
    assert {name: path.read_bytes() for name, path in files().items()} == content
    assert verdicts(again) == verdicts(whole)


def damage(path):
    path.write_bytes(path.read_bytes()[:-100])


def reshape(path):
    save_file({"delta": torch.zeros(1, 3, 4, 8, 8)}, path)


def spoil(path):
    """Another perturbation of the right shape, outside the budget, under the same description."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    save_file({"delta": torch.ones(1, 3, 4, 16, 16)}, path, metadata=about)


@pytest.mark.parametrize("change", [damage, reshape, spoil])
def test_a_file_that_cannot_be_used_is_fitted_again_with_a_warning(
    tiny_model, fake_videos, training, fits, caplog, change
):
    whole = rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS[:1], training=training, out="run")
    ((name, path),) = files().items()
    content = path.read_bytes()
    change(path)
    journal = Path("run/rows.jsonl")
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:24]))
    with caplog.at_level(logging.WARNING):
        again = rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS[:1], training=training, out="run")
    assert name in caplog.text
    assert "fitted again" in caplog.text
    assert len(fits) == 2
    fresh, first = load_file(path)["delta"], torch.frombuffer(bytearray(content[-4 * 3 * 4 * 256 :]), dtype=torch.float)
    assert torch.equal(fresh.flatten(), first)
    assert verdicts(again) == verdicts(whole)


def test_the_spec_knows_the_training_data_where_it_matters_and_only_there(tiny_model, fake_videos, training):
    plain = rv.evaluate(tiny_model, fake_videos, "fgsm", BUDGETS[:1])
    with_training = rv.evaluate(tiny_model, fake_videos, "fgsm", BUDGETS[:1], training=training)
    assert plain.key == with_training.key
    assert not (plain.folder / "perturbations").exists()
    both = rv.evaluate(tiny_model, fake_videos, ["fgsm", CARD], BUDGETS[:1], training=training)
    facts = {"name": "fake", "split": "train", "digest": "fake-v1", "videos": 14, "clips": 10}
    assert read_spec(both.folder)["training"] == facts
    longer = TrainVideos(tiny_model, count=15)
    assert rv.evaluate(tiny_model, fake_videos, ["fgsm", CARD], BUDGETS[:1], training=longer).key != both.key


def test_missing_or_foreign_training_data_is_refused(tiny_model, fake_videos, training, caplog):
    with pytest.raises(AttackError, match=r"universal.*pass training="):
        rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS)
    assert not Path("runs").exists()
    training.classes = ("a", "b", "c", "e")
    with pytest.raises(ModelError, match="training data"):
        rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS, training=training)
    with caplog.at_level(logging.WARNING):
        rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS[:1], training=fake_videos)
    assert "the very split" in caplog.text


def test_a_surrogate_is_what_is_fitted(tiny_model, fake_videos, training, fits):
    surrogate = VideoClassifier(TinyVideoNet(4, seed=1), tiny_model.card)
    settings = {"training": training, "surrogate": surrogate, "precision": "exact"}
    rv.evaluate(tiny_model, fake_videos, CARD, BUDGETS[:1], **settings)
    assert [model for model, _ in fits] == [surrogate]


def test_own_attacks_take_part_by_their_attribute(tiny_model, fake_videos, training):
    def shift(model, clips, labels, budget, seeds, *, delta=None, strength=0.5):
        return (clips + budget.project(delta)).clamp(0, 1)

    def fit(model, clips, labels, budget, *, strength):
        return torch.full((1, *clips.shape[1:]), strength)

    shift.fit = fit
    results = rv.evaluate(tiny_model, fake_videos, shift, BUDGETS[:1], training=training)
    attacked = [row for row in results.rows if row.attack != "clean"]
    assert {round(row.linf, 4) for row in attacked} == {round(4 / 255, 4)}
    shift.fit = lambda model, clips, labels, budget, *, seed: torch.zeros(2, 2)
    with pytest.raises(AttackError, match="fit of"):
        rv.evaluate(tiny_model, fake_videos, shift, BUDGETS[:1], training=training, out="other")


def test_only_attacks_with_a_fit_need_training():
    assert [attack.name for attack in fitted(plan_attacks(["fgsm", "universal", "pgd"])[0])] == ["universal"]


def test_the_command_line_finds_the_training_split():
    card = "universal:epochs=1,training_clips=16,batch_size=8"
    command = ["attack", "-a", card, "--eps-frame", "8/255", "-n", "4", "--out", "run", "--mlflow", "off", "--json"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert read_spec(Path("run"))["training"]["split"] == "train"
    assert len(files()) == 1
    dry = CliRunner().invoke(main, [*command, "--dry-run"], catch_exceptions=False)
    assert json.loads(dry.stdout)["seconds_at_most"] > 0
