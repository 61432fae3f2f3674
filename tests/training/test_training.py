from dataclasses import replace

import pytest
import torch
from toys import CLIP, Brightness, small_model

from robustvid.errors import ModelError, UnknownNameError
from robustvid.models import load_model
from robustvid.models.classifier import weights_digest
from robustvid.training import zoo
from robustvid.training.accuracy import Accuracy, clean_accuracy
from robustvid.training.loop import train
from robustvid.training.objectives import natural
from robustvid.training.plan import TrainingPlan
from robustvid.training.progress import training_progress

PLAN = TrainingPlan(epochs=2, batch_size=8, holdout=0)


@pytest.fixture
def model():
    model = small_model()
    model.card = replace(model.card, lineage=({"step": "before"},))
    return model


def mean_loss(model, data):
    samples = [data.sample(index, CLIP) for index in range(len(data))]
    clips = torch.stack([sample.frames for sample in samples]).permute(0, 4, 1, 2, 3) / 255
    with torch.no_grad():
        return float(natural().loss(model.eval(), clips, clips, torch.tensor([sample.label for sample in samples]))[0])


def test_two_epochs_lower_the_loss(model):
    data = Brightness()
    trained = train(model, data, replace(PLAN, lr=0.02))
    assert mean_loss(trained, data) < 0.9 * mean_loss(model, data)
    assert clean_accuracy(trained, data) == Accuracy(36, 36)


def test_the_seed_decides(model):
    first, again, other = (train(model, Brightness(), replace(PLAN, seed=seed)) for seed in (1, 1, 2))
    assert weights_digest(first) == weights_digest(again)
    assert weights_digest(first) != weights_digest(other)


def test_training_touches_neither_the_model_nor_the_random_state(model):
    digest, state = weights_digest(model), torch.get_rng_state()
    model.eval()
    trained = train(model, Brightness(), PLAN)
    assert weights_digest(model) == digest != weights_digest(trained)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert not trained.training
    assert len(model.card.lineage) == 1


def test_the_card_tells_of_the_training(model):
    before, entry = train(model, Brightness(), PLAN).card.lineage
    assert before == {"step": "before"}
    assert entry["step"] == "train"
    assert (entry["data"], entry["split"], entry["data_digest"]) == ("brightness", "train", "0" * 64)
    assert entry["plan"]["epochs"] == 2
    assert TrainingPlan(**entry["plan"]) == PLAN


def test_progress_goes_to_stderr(model, capsys):
    with training_progress(PLAN.epochs) as progress:
        train(model, Brightness(), replace(PLAN, holdout=6), progress=progress)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 2/2" in captured.err
    assert "held out: clean" in captured.err


def test_other_classes_are_refused(model):
    data = Brightness()
    data.classes = ("bright", "dark")
    with pytest.raises(ModelError, match=r"class 0 is 'dark' for the model and 'bright' for the data"):
        train(model, data, PLAN)


def test_an_unknown_objective_is_named(model):
    with pytest.raises(UnknownNameError, match=r"no objective named 'naturel'\. Did you mean 'natural'"):
        train(model, Brightness(), replace(PLAN, objective="naturel"))


def test_a_loss_that_explodes_is_reported(model):
    with torch.no_grad():
        model.network.head.bias[0] = float("nan")
    with pytest.raises(ModelError, match=r"training loss is nan; a learning rate below 0\.005"):
        train(model, Brightness(), PLAN)


def test_the_gradient_is_of_the_mean_cross_entropy(model):
    clips, labels = torch.rand(3, 3, 4, 16, 16), torch.tensor([0, 1, 1])
    model.eval()
    expected = -model(clips).log_softmax(1).gather(1, labels[:, None]).mean()
    loss, logits = natural().loss(model, clips, clips, labels)
    torch.testing.assert_close(loss, expected)
    assert logits.shape == (3, 2)


def test_accuracy_leaves_the_model_as_it_was(model):
    model.train()
    digest = weights_digest(model)
    correct, n = clean_accuracy(model, Brightness(), batch_size=7)
    assert n == 36
    assert 0 <= correct <= 36
    assert weights_digest(model) == digest
    assert model.training


class _Faked(Brightness):
    name = "motion10"


@pytest.fixture
def _fake_motion10(monkeypatch):
    monkeypatch.setattr(zoo, "load_data", lambda *_, **__: _Faked())
    recipe = zoo.Recipe(PLAN, "frame_pool", {"widths": [4, 4]}, clip=CLIP)
    monkeypatch.setattr(zoo, "RECIPES", {"small": recipe})


@pytest.mark.usefixtures("_fake_motion10")
def test_the_zoo_command_saves_what_it_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    zoo.main(["small"])
    model = load_model(tmp_path / "small")
    assert model.card.name == "small"
    assert model.card.lineage[0]["command"] == "python -m robustvid.training.zoo small"
    assert model.card.lineage[0]["data_digest"] == Brightness.digest
    assert "small: " in capsys.readouterr().out
    first = model.card.weights_digest
    zoo.main(["small"])
    assert load_model(tmp_path / "small").card.weights_digest == first


@pytest.mark.usefixtures("_fake_motion10")
def test_the_zoo_command_refuses_other_names(capsys):
    with pytest.raises(SystemExit):
        zoo.main(["large"])
    assert "invalid choice: 'large'" in capsys.readouterr().err


def test_shipped_weights_were_made_by_todays_recipes():
    for name, recipe in zoo.RECIPES.items():
        card = load_model(name).card
        assert TrainingPlan(**card.lineage[-1]["plan"]) == recipe.plan
        if recipe.start:
            assert card.lineage[:-1] == load_model(recipe.start).card.lineage
        else:
            assert (card.arch, card.options, card.clip) == (recipe.arch, recipe.options, recipe.clip)
