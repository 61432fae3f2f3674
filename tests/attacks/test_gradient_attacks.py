"""The closed form of the linear classifier, the contract, and what makes each attack itself."""

import math

import pytest
import torch
from linear import BUDGETS, B, H, LinearVideo, T, W, worst_case

import robustvid as rv
from robustvid.attacks.directions import chain, momentum, unit
from robustvid.attacks.fgsm import fgsm
from robustvid.attacks.goal import Goal
from robustvid.attacks.gradient import loss_gradient
from robustvid.attacks.mi_fgsm import mi_fgsm
from robustvid.attacks.pgd import pgd
from robustvid.budget import Budget
from robustvid.errors import CardError
from robustvid.losses import LOSSES, cross_entropy, margin
from robustvid.testing import TinyVideoNet, check_attack


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize(("attack", "tolerance"), [(fgsm, 1e-5), (pgd, 1e-2), (mi_fgsm, 1e-2)])
def test_linear_classifier_reaches_the_closed_form(name, attack, tolerance):
    model, budget = LinearVideo(), BUDGETS[name]
    clips = torch.full((B, 3, T, H, W), 0.5, dtype=torch.float64)
    labels = torch.zeros(B, dtype=torch.long)
    result = attack(model, clips, labels, budget, torch.arange(B))
    gain = model(result)[:, 1] - model(clips)[:, 1]
    torch.testing.assert_close(gain, worst_case(budget, model.difference), rtol=tolerance, atol=0)
    assert bool((budget.size(result - clips) <= 1).all())


class Alive(torch.nn.Module):
    """Counts how many clips wait for their backward at once."""

    def __init__(self, model, lanes):
        super().__init__()
        self.model, self.lanes, self.waiting, self.most = model, lanes, 0, 0

    def forward(self, clips):
        logits = self.model(clips)
        if logits.requires_grad:
            self.waiting += len(clips)
            self.most = max(self.most, self.waiting)
            logits.register_hook(self.done)
        return logits

    def done(self, grad):
        self.waiting -= len(grad)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_model_with_lanes_keeps_the_activations_of_one_lane_at_a_time(loss):
    model, clips = TinyVideoNet(4).eval(), torch.rand(7, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    goal = Goal(torch.arange(7) % 4, loss)
    whole, lanes = Alive(model, 7), Alive(model, 3)
    torch.testing.assert_close(loss_gradient(lanes, clips, goal), loss_gradient(whole, clips, goal))
    assert (whole.most, lanes.most) == (7, 3)


@pytest.mark.parametrize(
    "card",
    ["di-fgsm", "si-fgsm", "vmi-fgsm:neighbours=2", "temporal-shift", "flicker", "flow-warp", "pgd", "apgd-ce", "fmn"],
)
def test_attacks_keep_the_activations_of_one_lane_at_a_time(card):
    clips = torch.rand(7, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    model = Alive(TinyVideoNet(4).eval(), 3)
    model.surrogate = True  # no clip is left alone before its time
    attack = rv.load_attack(card, steps=2)
    attack(model, clips, torch.arange(7) % 4, Budget("linf", frame=8 / 255), torch.arange(7))
    assert model.most == 3


@pytest.mark.parametrize("card", ["fgsm", "pgd:steps=4", "mi-fgsm:steps=4"])
def test_contract(card):
    check_attack(rv.load_attack(card))


def test_fgsm_moves_every_pixel_by_eps():
    model, clips = TinyVideoNet(4), torch.full((2, 3, 4, 16, 16), 0.5)
    delta = fgsm(model.eval(), clips, torch.tensor([0, 1]), Budget("linf", 0.125), torch.arange(2)) - clips
    assert set(delta.abs().unique().tolist()) <= {0.0, 0.125}


def test_mi_fgsm_accumulates_normalised_gradients():
    direction = chain(unit(), momentum(0.5))
    first, second = torch.randn(2, 3, 2, 4, 4), torch.randn(2, 3, 2, 4, 4) * 1e-6
    memory = direction.init(first)
    _, memory = direction.update(first, memory)
    result, _ = direction.update(second, memory)

    def l1(grad):
        return grad / grad.abs().mean((1, 2, 3, 4), keepdim=True)

    torch.testing.assert_close(result, 0.5 * l1(first) + l1(second))


def test_mi_fgsm_with_one_step_is_fgsm():
    model, clips = TinyVideoNet(4).eval(), torch.rand(2, 3, 4, 16, 16)
    labels, budget, seeds = model(clips).argmax(1), Budget("l2", clip=0.01), torch.arange(2)
    one = mi_fgsm(model, clips, labels, budget, seeds, steps=1, step_size=1.0)
    torch.testing.assert_close(one, fgsm(model, clips, labels, budget, seeds))


def test_broken_clips_are_left_alone():
    """A clip that is wrong from the start costs one forward, whatever its batch mates need."""
    model, calls = TinyVideoNet(4).eval(), []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    clips = torch.rand(4, 3, 4, 16, 16)
    with torch.no_grad():
        labels = model(clips).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    calls.clear()
    pgd(model, clips, labels, Budget("linf", 1e-6), torch.arange(4), steps=5, random_start=False)
    assert calls == [4, 1, 1, 1, 1, 1]


def test_restarts_only_meet_what_stands_and_never_weaken():
    model = TinyVideoNet(4).eval()
    clips = torch.rand(6, 3, 4, 16, 16)
    labels, budget, seeds = model(clips).argmax(1), Budget("linf", "1/255"), torch.arange(6)
    one, three = (margin(model(pgd(model, clips, labels, budget, seeds, steps=3, restarts=r)), labels) for r in (1, 3))
    assert bool((three >= one).all())


def test_k_frames_touch_exactly_the_salient_ones():
    model = LinearVideo()
    clips = torch.full((1, 3, T, H, W), 0.5, dtype=torch.float64)
    result = pgd(model, clips, torch.zeros(1, dtype=torch.long), Budget("linf", "4/255", frames=2), torch.arange(1))
    touched = (result - clips).abs().amax((0, 1, 3, 4)).nonzero().flatten()
    assert touched.tolist() == [T - 2, T - 1]


def test_losses():
    logits, labels = torch.tensor([[3.0, 1.0, 2.0], [0.0, 4.0, 1.0]]), torch.tensor([0, 2])
    assert margin(logits, labels).tolist() == [-1.0, 3.0]
    assert LOSSES["dlr"](logits, labels).tolist() == pytest.approx([-0.5, 0.75])
    torch.testing.assert_close(LOSSES["dlr"](7 * logits + 3, labels), LOSSES["dlr"](logits, labels))
    assert LOSSES["dlr"](logits[:, :2], torch.tensor([0, 1])).tolist() == [-2.0, -4.0]
    assert cross_entropy(logits, labels)[0] == pytest.approx(-3 + math.log(math.exp(3) + math.exp(1) + math.exp(2)))


def test_samples_never_mix():
    model, clips, labels = TinyVideoNet(4).eval(), torch.rand(3, 3, 4, 16, 16), torch.tensor([0, 1, 2])
    together, _ = loss_gradient(model, clips, Goal(labels))
    alone = torch.cat([loss_gradient(model, clips[i : i + 1], Goal(labels[i : i + 1]))[0] for i in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"restarts": 0}, {"step_size": -1.0}, {"step_size": math.nan}])
def test_settings_that_attack_nothing_are_refused(settings):
    model, clips = TinyVideoNet(4).eval(), torch.rand(1, 3, 4, 16, 16)
    with pytest.raises(CardError, match="give"):
        pgd(model, clips, torch.tensor([0]), Budget("linf", "8/255"), torch.arange(1), **settings)


def test_a_gradient_with_nan_does_not_spread():
    class Root(TinyVideoNet):
        def forward(self, clips):
            return super().forward(clips) + 0 * (clips[:, :, 0] - clips[:, :, 0]).sqrt().sum((1, 2, 3))[:, None]

    model, clips = Root(4).eval(), torch.rand(2, 3, 4, 16, 16)
    labels = model(clips).argmax(1)
    for attack in (fgsm, pgd, mi_fgsm):
        for budget in (Budget("linf", "8/255"), Budget("l2", clip=1.0)):
            result = attack(model, clips, labels, budget, torch.arange(2))
            assert bool(torch.isfinite(result).all())
            assert bool((budget.size(result - clips) <= 1).all())
