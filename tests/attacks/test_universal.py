"""One perturbation for all clips: the closed form of the linear classifier, and what it does to clips never seen."""

import pytest
import torch
from linear import BUDGETS, B, H, LinearVideo, T, W, worst_case

import robustvid as rv
from robustvid.attacks.universal import fit_universal, universal
from robustvid.budget import Budget
from robustvid.contracts import frozen
from robustvid.errors import AttackError, BudgetError, CardError
from robustvid.testing import BUDGETS as CONTRACT_BUDGETS
from robustvid.testing import TinyVideoNet, check_attack

LINF = Budget("linf", "8/255")
SEEDS = torch.arange(4)


def tiny(count=4, classes=4, shape=(4, 16, 16)):
    model, clips = (
        TinyVideoNet(classes).eval(),
        torch.rand(count, 3, *shape, generator=torch.Generator().manual_seed(1)),
    )
    with torch.no_grad():
        return model, clips, model(clips).argmax(1)


@pytest.mark.parametrize("name", [name for name in BUDGETS if not name.endswith("per-clip")])
def test_linear_classifier_reaches_the_closed_form(name):
    model, budget = LinearVideo(), BUDGETS[name]
    clips = torch.full((B, 3, T, H, W), 0.5, dtype=torch.float64)
    labels = torch.zeros(B, dtype=torch.long)
    delta = fit_universal(model, clips, labels, budget, epochs=80, batch_size=3, roll=False)
    assert delta.shape == (1, 3, T, H, W)
    result = universal(model, clips, labels, budget, torch.arange(B), delta=delta)
    gain = model(result)[:, 1] - model(clips)[:, 1]
    torch.testing.assert_close(gain, worst_case(budget, model.difference), rtol=1e-2, atol=0)
    assert bool((budget.size(result - clips) <= 1).all())


def test_rolled_fits_forget_where_in_time_they_are():
    """The gradient of a linear model, rolled at random and averaged, is the same in every frame."""
    model, clips = LinearVideo(), torch.full((16, 3, T, H, W), 0.5, dtype=torch.float64)
    budget, labels = Budget("l2", clip=0.2), torch.zeros(16, dtype=torch.long)
    delta = fit_universal(model, clips, labels, budget, epochs=200, batch_size=4, step_size=0.02)
    mean = model.difference.mean(1, keepdim=True).expand_as(model.difference)
    cosine = torch.nn.functional.cosine_similarity(delta.flatten(), mean.flatten(), dim=0)
    assert float(cosine) > 0.9


def test_every_clip_gets_the_same():
    model, clips, labels = tiny()
    clips = 0.3 + 0.4 * clips  # nothing is clamped
    delta = fit_universal(model, clips, labels, LINF, epochs=1)
    change = universal(model, clips, labels, LINF, SEEDS, delta=delta) - clips
    torch.testing.assert_close(change, delta.expand_as(change), rtol=0, atol=1e-6)


def test_each_clip_s_own_budget_and_perturbation_hold():
    model, clips, labels = tiny()
    own = Budget("linf", torch.tensor([0.0, 0.01, 0.02, 0.5]), frames=torch.tensor([1, 2, 3, 4]))
    delta = LINF.start(clips, SEEDS)
    result = universal(model, clips, labels, own, SEEDS, delta=delta)
    assert bool((own.size(result - clips) <= 1).all())
    assert torch.equal(result[0], clips[0])
    torch.testing.assert_close(result[3], (clips[3] + delta[3]).clamp(0, 1))


@pytest.mark.parametrize("budget", CONTRACT_BUDGETS, ids=lambda budget: budget.describe())
def test_the_fit_is_a_function_of_its_seed_and_leaves_everything_as_it_was(budget):
    model, clips, labels = tiny()
    model.train()
    pixels, random = (clips * 255).round().to(torch.uint8), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = {"epochs": 2, "batch_size": 3}
    one, again = (fit_universal(model, pixels, labels, budget, seed=5, **settings) for _ in range(2))
    other = fit_universal(model, pixels.float() / 255, labels, budget, seed=6, **settings)
    same = fit_universal(model, pixels.float() / 255, labels, budget, seed=5, **settings)
    assert torch.equal(one, again)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert float(budget.size(one)) <= 1
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_attack_asks_the_model_nothing_and_the_fit_as_often_as_it_says():
    model, clips, labels = tiny(count=5)
    calls = []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    delta = fit_universal(model, clips, labels, LINF, epochs=3, batch_size=2)
    assert sum(calls) == 15
    calls.clear()
    fit_universal(model, clips, labels, Budget("linf", "8/255", frames=2), epochs=3, batch_size=2)
    assert sum(calls) == 17
    calls.clear()
    universal(model, clips, labels, LINF, torch.arange(5), delta=delta)
    assert not calls


def test_contract():
    def attack(model, clips, labels, budget, seeds):
        noise = torch.rand(3, *clips.shape[1:], generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            answers = model(noise).argmax(1)
        delta = fit_universal(model, noise, answers, budget, epochs=1)
        return universal(model, clips, labels, budget, seeds, delta=delta)

    check_attack(attack, classes=(3,), shapes=((4, 12, 20), (1, 16, 16)))


def test_what_cannot_be_is_refused():
    model, clips, labels = tiny()
    with pytest.raises(AttackError, match=r"training=.*fit_universal"):
        rv.load_attack("universal")(model, clips, labels, LINF, SEEDS)
    for shape in ((1, 3, 4, 16, 8), (2, 3, 4, 16, 16), (3, 4, 16, 16)):
        with pytest.raises(AttackError, match="delta is"):
            universal(model, clips, labels, LINF, SEEDS, delta=torch.zeros(shape))
    with pytest.raises(BudgetError, match="plain radii"):
        fit_universal(model, clips, labels, Budget("linf", torch.full((4,), 0.1)))
    for settings in ({"epochs": 0}, {"batch_size": 0}, {"step_size": 0.0}):
        with pytest.raises(CardError, match="above 0"):
            fit_universal(model, clips, labels, LINF, **settings)


def motion10(model, split, count):
    data = rv.load_data("motion10", split=split)
    samples = [data.sample(index, model.card.clip) for index in range(count)]
    clips = torch.stack([sample.frames.permute(3, 0, 1, 2) for sample in samples])
    return clips, torch.tensor([sample.label for sample in samples])


def held_out(count, training_clips, epochs):
    """Fit on the training split of motion10; return the fooling rates of noise, of δ, and of δ rolled, elsewhere."""
    model = rv.load_model("conv3d")
    clips, _ = motion10(model, "test", count)
    clips = clips.float() / 255
    with frozen(model), torch.no_grad():
        delta = fit_universal(
            model, *motion10(model, "train", training_clips), LINF, epochs=epochs, batch_size=16, step_size=0.2
        )
        answers = model(clips).argmax(1)

        def fooled(change):
            return float((model((clips + change).clamp(0, 1)).argmax(1) != answers).float().mean())

        random = torch.randn(delta.shape, generator=torch.Generator().manual_seed(2))
        noise = max(fooled(LINF.start(delta, torch.tensor([7]))), fooled(LINF.steepest(random)))
        rolled = [fooled(delta.roll(shift, 2)) for shift in range(1, delta.shape[2])]
        return noise, fooled(delta), rolled


def test_clips_never_seen_are_fooled_and_noise_of_the_same_size_does_not():
    noise, fooled, _ = held_out(count=40, training_clips=80, epochs=4)
    assert fooled >= max(5 * noise, 0.3)


@pytest.mark.slow
def test_held_out_fooling_rate_holds_under_any_roll():
    noise, fooled, rolled = held_out(count=200, training_clips=300, epochs=6)
    assert fooled >= max(5 * noise, 0.5)
    assert min(rolled) >= fooled - 0.1
    assert max(rolled) <= fooled + 0.1
