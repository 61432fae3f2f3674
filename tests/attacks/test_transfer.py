"""The transfer family: each attack is MI-FGSM when its own idea is switched off, and its idea when it is on."""

import pytest
import torch
import torch.nn.functional as F
from linear import BUDGETS, B, H, LinearVideo, T, W, worst_case

import robustvid as rv
from robustvid.attacks.directions import chain, momentum
from robustvid.attacks.goal import Goal
from robustvid.attacks.gradient import Ascent, ascend, loss_gradient
from robustvid.attacks.mi_fgsm import mi_fgsm
from robustvid.attacks.temporal_shift import frame_unit, shift_weights, temporal_shift
from robustvid.attacks.transfer import di_fgsm, ni_fgsm, si_fgsm, smooth, ti_fgsm, vmi_fgsm
from robustvid.budget import Budget
from robustvid.errors import CardError
from robustvid.evaluation.probe import Probe
from robustvid.losses import cross_entropy
from robustvid.testing import TinyVideoNet, check_attack

SHORT = {
    ni_fgsm: {},
    di_fgsm: {"probability": 0.0},
    ti_fgsm: {"kernel": 1},
    si_fgsm: {"copies": 3},
    vmi_fgsm: {"neighbours": 2},
    temporal_shift: {"shifts": 0},
}
SMALL = [Budget("linf", "1/255"), Budget("linf", "4/255", frames=2), Budget("l2", frame=0.02, clip=0.03)]


def clips_of(count=4, shape=(4, 12, 16), dtype=torch.float32):
    noise = torch.rand(count, 3, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (0.2 + 0.6 * noise).to(dtype)


def setting(count=4, shape=(4, 12, 16), dtype=torch.float32):
    """A model that is right on its clips, ready for attacks that spend all their steps."""
    model, clips = TinyVideoNet(4).eval().to(dtype), clips_of(count, shape, dtype)
    model.surrogate = True
    with torch.no_grad():
        labels = model(clips).argmax(1)
    return model, clips, labels, torch.arange(count)


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize("attack", SHORT)
def test_linear_classifier_reaches_the_closed_form(name, attack):
    model, budget = LinearVideo(), BUDGETS[name]
    clips = torch.full((B, 3, T, H, W), 0.5, dtype=torch.float64)
    result = attack(model, clips, torch.zeros(B, dtype=torch.long), budget, torch.arange(B), **SHORT[attack])
    gain = model(result)[:, 1] - model(clips)[:, 1]
    torch.testing.assert_close(gain, worst_case(budget, model.difference), rtol=1e-2, atol=0)
    assert bool((budget.size(result - clips) <= 1).all())


@pytest.mark.parametrize(
    "card",
    ["ni-fgsm", "di-fgsm", "ti-fgsm", "si-fgsm:copies=2", "vmi-fgsm:neighbours=2", "temporal-shift:shifts=1"],
)
def test_contract(card):
    check_attack(rv.load_attack(card, steps=2, step_size=0.5), SMALL, classes=(3,), shapes=((4, 12, 20),))


@pytest.mark.parametrize("budget", SMALL)
@pytest.mark.parametrize(
    ("attack", "off"),
    [
        (di_fgsm, {"probability": 0.0}),
        (ti_fgsm, {"kernel": 1}),
        (ti_fgsm, {"sigma": 1e-6}),
        (si_fgsm, {"copies": 1}),
        (vmi_fgsm, {"neighbours": 0}),
        (vmi_fgsm, {"neighbours": 1, "beta": 0.0}),
    ],
)
def test_switched_off_it_is_mi_fgsm(attack, off, budget):
    model, clips, labels, seeds = setting()
    plain = mi_fgsm(model, clips, labels, budget, seeds, steps=3)
    assert torch.equal(attack(model, clips, labels, budget, seeds, steps=3, **off), plain)
    assert not torch.equal(attack(model, clips, labels, budget, seeds, steps=3), plain)


@pytest.mark.parametrize("budget", SMALL)
def test_without_momentum_there_is_no_look_ahead(budget):
    model, clips, labels, seeds = setting()
    plain, ahead = (attack(model, clips, labels, budget, seeds, decay=0.0) for attack in (mi_fgsm, ni_fgsm))
    assert torch.equal(plain, ahead)
    plain, ahead, scaled = (attack(model, clips, labels, budget, seeds) for attack in (mi_fgsm, ni_fgsm, si_fgsm))
    assert not torch.equal(plain, ahead)
    assert torch.equal(ahead, si_fgsm(model, clips, labels, budget, seeds, copies=1, nesterov=True))
    assert not torch.equal(scaled, si_fgsm(model, clips, labels, budget, seeds, nesterov=True))


@pytest.mark.parametrize("budget", SMALL)
def test_without_shifts_it_is_momentum_on_single_frames(budget):
    model, clips, labels, seeds = setting()
    result = temporal_shift(model, clips, labels, budget, seeds, steps=3, shifts=0)
    if budget.clip is None:
        base = Ascent(3, 0.1, chain(frame_unit(), momentum(1.0)), random_start=False)
        assert torch.equal(result, ascend(model, clips, Goal(labels), budget, seeds, base))
    else:
        assert torch.equal(result, mi_fgsm(model, clips, labels, budget, seeds, steps=3))
    assert not torch.equal(result, temporal_shift(model, clips, labels, budget, seeds, steps=3, shifts=1))


def test_a_single_frame_has_no_time_to_shift():
    model, clips, labels, seeds = setting(shape=(1, 12, 16))
    plain = mi_fgsm(model, clips, labels, SMALL[0], seeds)
    assert torch.equal(temporal_shift(model, clips, labels, SMALL[0], seeds), plain)


@pytest.mark.parametrize(("frames", "shifts"), [(2, 1), (8, 2), (16, 4)])
def test_shifts_are_the_papers_share_of_the_clip(frames, shifts):
    model, clips, labels, seeds = setting(shape=(frames, 8, 8))
    default = temporal_shift(model, clips, labels, SMALL[0], seeds)
    assert torch.equal(default, temporal_shift(model, clips, labels, SMALL[0], seeds, shifts=shifts))
    assert not torch.equal(default, temporal_shift(model, clips, labels, SMALL[0], seeds, shifts=shifts - 1))


def test_weights_of_shifts_are_a_gaussian():
    weights = shift_weights(7, 100)
    assert len(weights) == 15
    assert sum(weights.values()) == pytest.approx(1)
    assert all(weights[shift] == weights[100 - shift] for shift in range(1, 8))
    assert weights[7] / weights[0] == pytest.approx(torch.tensor(-4.5).exp().item())  # three standard deviations
    cyclic = shift_weights(7, 8)
    assert len(cyclic) == 8
    assert sum(cyclic.values()) == pytest.approx(1)
    assert cyclic[3] == pytest.approx(weights[3] + weights[95])
    assert shift_weights(5, 1) == {0: 1.0}
    assert shift_weights(0, 8) == {0: 1.0}


@pytest.mark.parametrize("shifts", [1, 2, 6])
def test_the_gradient_is_the_weighted_sum_over_shifts(shifts):
    model, clips, labels, seeds = setting(dtype=torch.float64)
    budget = Budget("l2", clip=1e-3)
    delta = temporal_shift(model, clips, labels, budget, seeds, steps=1, step_size=1.0, shifts=shifts) - clips
    total = 0
    for shift in range(-shifts, shifts + 1):
        grad, _ = loss_gradient(model, clips.roll(shift, 2), Goal(labels))
        total = total + torch.tensor(-4.5 * (shift / shifts) ** 2).exp() * grad.roll(-shift, 2)
    torch.testing.assert_close(delta, budget.steepest(total), rtol=1e-4, atol=1e-9)


def test_a_model_that_does_not_mind_shifts_gives_its_own_gradient():
    class Bag(torch.nn.Module):
        surrogate = True

        def forward(self, clips):
            frames = clips.transpose(1, 2).flatten(0, 1)
            weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=clips.dtype)
            features = F.conv2d(frames, weight).tanh().mean((2, 3)).view(len(clips), -1, 4)
            return features.square().mean(1) * 20

    _, clips, labels, seeds = setting(dtype=torch.float64)
    for budget in (Budget("l2", frame=0.1), Budget("l2", clip=0.1)):
        base, shifted = (temporal_shift(Bag(), clips, labels, budget, seeds, shifts=n) for n in (0, 3))
        torch.testing.assert_close(base, shifted)


def test_a_clip_is_transformed_as_a_whole():
    """Still clips stay still, each in its own way, anew at every step, and as interpolation and padding have it."""
    model, seen = TinyVideoNet(4).eval(), []
    model.surrogate = True
    model.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].detach()) if torch.is_grad_enabled() else None
    )
    clips = clips_of(1, (1, 24, 40)).expand(3, -1, 5, -1, -1).contiguous()
    labels = torch.tensor([0, 1, 2])
    di_fgsm(model, clips, labels, Budget("linf", 1e-9), torch.arange(3), steps=2, probability=1.0)
    assert len(seen) == 2
    for views in seen:
        assert torch.equal(views, views[:, :, :1].expand_as(views))
        assert not any(torch.equal(views[i], views[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert not torch.equal(*seen)
    for view in seen[0][:, :, 0]:
        rows, columns = (view.sum(axes).nonzero().flatten() for axes in ((0, 2), (0, 1)))
        size = len(rows), len(columns)
        assert 22 <= size[0] <= 24
        assert 36 <= size[1] <= 40
        small = F.interpolate(clips[:1, :, 0], size, mode="bilinear")[0]
        found = view[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        torch.testing.assert_close(found, small, rtol=1e-4, atol=1e-5)


def test_some_clips_are_left_as_they_are():
    model, seen = TinyVideoNet(4).eval(), []
    model.surrogate = True
    model.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].detach()) if torch.is_grad_enabled() else None
    )
    clips = clips_of(40, (1, 16, 16))
    di_fgsm(model, clips, torch.zeros(40, dtype=torch.long), Budget("linf", 1e-9), torch.arange(40), steps=1)
    kept = (seen[0] - clips).abs().amax((1, 2, 3, 4)) < 1e-6
    assert 10 <= int(kept.sum()) <= 30


@pytest.mark.parametrize(("size", "kernel"), [((24, 40), 15), ((24, 40), 5), ((6, 40), 15)])
def test_smoothing_is_a_convolution_of_each_frame(size, kernel):
    grad = torch.randn(2, 3, 4, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result, _ = smooth(kernel, 3.0).update(grad, ())
    wanted = grad.flatten(0, 2)[:, None]
    for axis, length in enumerate(size):
        width = min(kernel, length if length % 2 else length - 1)
        taps = (-0.5 * ((torch.arange(width, dtype=torch.float64) - width // 2) / 3).square()).exp()
        shape = [1, 1, 1, 1]
        shape[2 + axis] = width
        wanted = F.conv2d(wanted, (taps / taps.sum()).view(shape), padding="same")
    torch.testing.assert_close(result, wanted.view_as(grad))


def test_costs_are_those_of_the_docstrings():
    _, clips, labels, seeds = setting(1)
    wanted = {
        "ni-fgsm": (20, 10),
        "di-fgsm": (21, 10),
        "ti-fgsm": (11, 10),
        "si-fgsm": (51, 50),
        "si-fgsm:nesterov=true": (60, 50),
        "vmi-fgsm:neighbours=3": (11 + 27, 10 + 27),
        "temporal-shift": (31, 30),
        "temporal-shift:shifts=7": (41, 40),
    }
    for card, costs in wanted.items():
        probe = Probe(TinyVideoNet(4).eval(), lanes=1)
        rv.load_attack(card)(probe, clips, labels, Budget("linf", 1e-9), seeds)
        assert (card, probe.forwards, probe.backwards) == (card, *costs)


@pytest.mark.parametrize("attack", [di_fgsm, si_fgsm, vmi_fgsm, temporal_shift])
def test_broken_clips_cost_no_further_passes(attack):
    model, calls = TinyVideoNet(4).eval(), []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    clips = clips_of()
    with torch.no_grad():
        labels = model(clips).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    calls.clear()
    attack(model, clips, labels, Budget("linf", 1e-9), torch.arange(4), steps=2)
    assert calls[0] == 4
    assert len(calls) > 3
    assert set(calls[1:]) == {1}


def test_variance_belongs_to_its_clip():
    """Clips that fall at different steps leave the others' memory alone."""
    model, clips, _, seeds = setting(8, dtype=torch.float64)
    del model.surrogate
    labels, budget = model(clips).argmax(1), Budget("linf", torch.linspace(0.001, 0.2, 8, dtype=torch.float64))
    together = vmi_fgsm(model, clips, labels, budget, seeds, neighbours=2)
    fallen = model(together).argmax(1) != labels
    assert 0 < int(fallen.sum()) < 8
    for clip in range(8):
        one = torch.tensor([clip])
        alone = vmi_fgsm(model, clips[one], labels[one], budget.select(one), seeds[one], neighbours=2)
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["NIFGSM", "SINIFGSM", "VMIFGSM"])
def test_torchattacks_reaches_the_same(name):
    """On its own layout, frames folded into channels; its last iterate against our best one."""
    import torchattacks

    model, clips, labels, seeds = setting(shape=(4, 16, 16))
    eps, step = 2 / 255, 0.1
    ours, extra = {
        "NIFGSM": (lambda **k: ni_fgsm(model, clips, labels, Budget("linf", eps), seeds, **k), {}),
        "SINIFGSM": (lambda **k: si_fgsm(model, clips, labels, Budget("linf", eps), seeds, nesterov=True, **k), {}),
        "VMIFGSM": (lambda **k: vmi_fgsm(model, clips, labels, Budget("linf", eps), seeds, **k), {"N": 20}),
    }[name]

    class Folded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images.view(-1, 3, 4, 16, 16))

    theirs = getattr(torchattacks, name)(Folded().eval(), eps=eps, alpha=step * eps, **extra)
    theirs.steps = 1
    first = theirs(clips.flatten(1, 2), labels).view_as(clips)
    assert float(((first - ours(steps=1)).abs() > 1e-6).float().mean()) < 1e-3
    theirs.steps = 10
    last = theirs(clips.flatten(1, 2), labels).view_as(clips)
    before, mine, reached = (cross_entropy(model(x), labels) for x in (clips, ours(), last))
    assert bool((reached > before + 0.01).all())
    torch.testing.assert_close(mine - before, reached - before, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(
    ("attack", "setting"),
    [
        (di_fgsm, {"probability": 1.5}),
        (di_fgsm, {"smallest": 0.0}),
        (ti_fgsm, {"kernel": 4}),
        (ti_fgsm, {"sigma": 0.0}),
        (si_fgsm, {"copies": 0}),
        (vmi_fgsm, {"neighbours": -1}),
        (vmi_fgsm, {"beta": -1.0}),
        (temporal_shift, {"shifts": -1}),
    ],
)
def test_settings_that_mean_nothing_are_refused(attack, setting):
    model, clips = TinyVideoNet(4).eval(), clips_of(1)
    with pytest.raises(CardError, match="give"):
        attack(model, clips, torch.tensor([0]), Budget("linf", "8/255"), torch.arange(1), **setting)
