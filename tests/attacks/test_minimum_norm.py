"""Minimum-norm attacks: closed forms, true balls, projections onto hyperplanes, and norms that are what they say."""

from dataclasses import replace

import pytest
import torch
from linear import BUDGETS, B, H, LinearVideo, T, W, worst_case

import robustvid as rv
from robustvid.attacks.ddn import ddn
from robustvid.attacks.fab import fab, to_hyperplane
from robustvid.attacks.fmn import fmn
from robustvid.attacks.goal import Goal
from robustvid.attacks.gradient import Problem
from robustvid.attacks.minimum import Smallest, minimum_norms, step_in_ball
from robustvid.attacks.pgd import pgd
from robustvid.budget import Budget
from robustvid.errors import BudgetError, CardError
from robustvid.losses import margin
from robustvid.testing import TinyVideoNet, check_attack

ATTACKS = {"fmn": fmn, "ddn": ddn, "fab": fab}
SERVED = {
    "fmn": list(BUDGETS),
    "ddn": [name for name in BUDGETS if name.startswith("l2")],
    "fab": [name for name in BUDGETS if name.startswith("linf") or name == "l2-clip"],
}
PAIRS = [(attack, name) for attack, names in SERVED.items() for name in names]
MARGIN = 1.0


class Near(LinearVideo):
    """The linear classifier, so near to the decision that no pixel gets to black or white."""

    def forward(self, clips):
        return super().forward(clips) - torch.tensor([25.0 - MARGIN, 0.0])


def grey():
    return torch.full((B, 3, T, H, W), 0.5, dtype=torch.float64), torch.zeros(B, dtype=torch.long)


def scaled(budget, factor):
    radii = {name: getattr(budget, name) for name in ("frame", "clip")}
    radii = {name: r if isinstance(r, torch.Tensor) else float(r) for name, r in radii.items() if r is not None}
    return replace(budget, **{name: factor * radius for name, radius in radii.items()})


def tiny(count=6, frames=4):
    model = TinyVideoNet(4, seed=3).eval().requires_grad_(False)
    clips = 0.2 + 0.6 * torch.rand(count, 3, frames, 16, 16, generator=torch.Generator().manual_seed(1))
    return model, clips, model(clips).argmax(1), torch.arange(count)


@pytest.mark.parametrize(("attack", "name"), PAIRS)
def test_linear_classifier_has_the_smallest_perturbation_in_closed_form(attack, name):
    """Its size is margin / dual norm; the budget is twice as large, so that exactly half of it is used."""
    model, (clips, labels) = Near(), grey()
    smallest = MARGIN / worst_case(BUDGETS[name], model.difference)
    budget = scaled(BUDGETS[name], 2 * smallest)
    result = ATTACKS[attack](model, clips, labels, budget, torch.arange(B), steps=60)
    size = replace(budget, frames=None).size(result - clips)
    assert bool((model(result).argmax(1) == 1).all())
    torch.testing.assert_close(size, torch.full_like(size, 0.5), rtol=0.01, atol=0)
    assert bool((size >= 0.5 - 1e-6).all())
    assert bool((budget.size(result - clips) <= 1).all())


@pytest.mark.parametrize(("attack", "name"), PAIRS)
def test_what_is_too_large_is_projected_onto_the_budget(attack, name):
    model, (clips, labels) = Near(), grey()
    budget = scaled(BUDGETS[name], 0.9 * MARGIN / worst_case(BUDGETS[name], model.difference))
    result = ATTACKS[attack](model, clips, labels, budget, torch.arange(B), steps=30)
    assert bool((budget.size(result - clips) <= 1).all())
    gain = MARGIN + margin(model(result), labels)
    assert bool((gain >= 0.99 * worst_case(budget, model.difference)).all())
    assert bool((model(result).argmax(1) == 0).all())


@pytest.mark.parametrize(
    ("norm", "per", "power", "over"), [("linf", "frame", 1, 1), ("l2", "frame", 2, 1), ("l2", "clip", 2, 2)]
)
def test_norms_are_in_pixels(norm, per, power, over):
    model, (clips, labels) = Near(), grey()
    frames = model.difference.abs().pow(power).sum((0, 2, 3)).pow(1 / power)
    found, norms = minimum_norms(fmn, model, clips, labels, torch.arange(B), norm=norm, per=per)
    wanted = MARGIN / frames.pow(over).sum().pow(1 / over)
    torch.testing.assert_close(norms, wanted.expand(B), rtol=0.01, atol=0)
    assert bool((model(found).argmax(1) == 1).all())
    _, fewer = minimum_norms(fmn, model, clips, labels, torch.arange(B), norm=norm, per=per, frames=2)
    wanted = MARGIN / frames.topk(2).values.pow(over).sum().pow(1 / over)
    torch.testing.assert_close(fewer, wanted.expand(B), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("attack", "norm", "per"),
    [
        ("fmn", "linf", "frame"),
        ("fmn", "l2", "frame"),
        ("ddn", "l2", "clip"),
        ("fab", "linf", "frame"),
        ("fab", "l2", "clip"),
    ],
)
def test_every_norm_is_that_of_an_adversarial_clip(attack, norm, per):
    model, clips, labels, seeds = tiny()
    labels[0] = (labels[0] + 1) % 4
    few = rv.load_attack(attack, steps=10)
    found, norms = minimum_norms(few, model, clips, labels, seeds, norm=norm, per=per)
    assert norms.dtype == torch.float64
    assert bool((model(found).argmax(1) != labels).all())
    delta = (found - clips).double()
    measured = {
        ("linf", "frame"): lambda: delta.abs().flatten(1).amax(1),
        ("l2", "frame"): lambda: delta.square().sum((1, 3, 4)).sqrt().amax(1),
        ("l2", "clip"): lambda: delta.flatten(1).norm(dim=1),
    }[norm, per]()
    torch.testing.assert_close(norms, measured)
    assert norms[0] == 0
    alone = [
        minimum_norms(few, model, clips[i:][:1], labels[i:][:1], seeds[i:][:1], norm=norm, per=per) for i in range(6)
    ]
    torch.testing.assert_close(norms, torch.cat([norm for _, norm in alone]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("attack", ATTACKS)
def test_where_nothing_is_adversarial_the_norm_is_infinite(attack):
    class Deaf(torch.nn.Module):
        def forward(self, clips):
            return torch.tensor([2.0, 1.0, 0.0]) + 0 * clips.sum((1, 2, 3, 4))[:, None]

    _, clips, _, seeds = tiny(2)
    found, norms = minimum_norms(
        rv.load_attack(attack, steps=10), Deaf(), clips, torch.zeros(2, dtype=torch.long), seeds
    )
    assert norms.tolist() == [torch.inf] * 2
    assert bool(((found >= 0) & (found <= 1)).all())


@pytest.mark.parametrize("budget", [Budget("l2", clip=1.0), Budget("l2", frame=1.0), Budget("l2", frame=1.0, clip=1.5)])
def test_balls_are_no_spheres(budget):
    """A perturbation inside the ball is not pushed out to the sphere, as a rescaling to the radius would."""
    clips = torch.full((2, 3, 4, 8, 8), 0.5)
    delta = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    problem = Problem(clips, Goal(torch.zeros(2, dtype=torch.long)), budget, torch.arange(2), None)
    still = step_in_ball(clips + delta, torch.zeros_like(clips), problem, torch.tensor([1.0, 0.5]), share=1.0)
    torch.testing.assert_close(still, clips + delta)
    large = step_in_ball(clips + 1e3 * delta, torch.zeros_like(clips), problem, torch.tensor([1e-2, 5e-3]), share=1.0)
    torch.testing.assert_close(budget.size(large - clips), torch.tensor([1e-2, 5e-3]).double(), rtol=1e-3, atol=0)


def test_the_smallest_is_kept_and_not_the_last():
    clips, labels = torch.full((1, 3, 2, 4, 4), 0.5), torch.zeros(1, dtype=torch.long)
    smallest = Smallest(Problem(clips, Goal(labels), Budget("linf", 0.2), torch.arange(1), None))
    right, wrong, barely = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.000001]])
    told = [
        bool(smallest.offer(clips + shift, logits))
        for shift, logits in ((0.01, right), (0.3, wrong), (0.1, wrong), (0.15, wrong), (0.05, right), (0.02, barely))
    ]
    assert told == [False, True, True, True, False, False]
    assert float(smallest.size) == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(smallest.clips, clips + 0.1)


def by_bisection(points, normal, rise, norm):
    """The same projection, along a fixed direction whose length is found by halving, pixel by pixel in float64."""
    direction = normal * rise.sign()[:, None]
    direction = direction.sign() if norm == "linf" else direction
    low, high = torch.zeros_like(rise), torch.full_like(rise, 1e12)
    for _ in range(300):
        middle = (low + high) / 2
        moved = (points + middle[:, None] * direction).clamp(0, 1) - points
        short = (normal * moved).sum(1).abs() < rise.abs()
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return (points + high[:, None] * direction).clamp(0, 1) - points


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tail", [1, 5], ids=["even", "heavy-tailed"])
def test_projection_onto_a_hyperplane_in_the_box(norm, dtype, tail):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(64, 200, generator=generator, dtype=torch.float64)
    points[:, ::7], points[:, 1::7] = 0.0, 1.0
    normal = torch.randn(64, 200, generator=generator, dtype=torch.float64).pow(tail)
    normal[:, 2::5] = 0.0
    most = torch.where(normal > 0, 1 - points, -points).mul(normal).sum(1)
    least = torch.where(normal > 0, -points, 1 - points).mul(normal).sum(1)
    share = torch.linspace(1e-4, 0.999, 32, dtype=torch.float64)
    rise = torch.cat([share * most[:32], share * least[32:]])
    moved = to_hyperplane(points.to(dtype), normal.to(dtype), rise.to(dtype), norm).double()
    torch.testing.assert_close((normal * moved).sum(1), rise, rtol=1e-5, atol=0)
    assert bool(((points + moved >= -1e-6) & (points + moved <= 1 + 1e-6)).all())
    power = torch.inf if norm == "linf" else 2
    reference = by_bisection(points, normal, rise, norm).norm(power, dim=1)
    torch.testing.assert_close(moved.norm(power, dim=1), reference, rtol=1e-4, atol=0)
    beyond = to_hyperplane(points.to(dtype), normal.to(dtype), (2 * most).to(dtype), norm).double()
    corner = torch.where(normal > 0, 1 - points, torch.where(normal < 0, -points, 0.0))
    torch.testing.assert_close(beyond, corner, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_without_slope_stays(norm):
    points = torch.rand(2, 3, 2, 4, 4)
    assert bool((to_hyperplane(points, torch.zeros_like(points), torch.ones(2), norm) == 0).all())


@pytest.mark.parametrize("card", ["fmn:steps=2", "ddn:steps=2", "fab:steps=1,targets=2"])
def test_contract(card):
    check_attack(rv.load_attack(card), classes=(3,), shapes=((4, 12, 20),))


@pytest.mark.parametrize("attack", ATTACKS)
def test_misclassified_clips_cost_one_forward_and_the_rest_go_on_shrinking(attack):
    model, clips, labels, seeds = tiny(4)
    labels[:3] = (labels[:3] + 1) % 4
    calls = []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    result = ATTACKS[attack](model, clips, labels, Budget("l2", clip=20.0), seeds, steps=10)
    assert calls[0] == 4
    assert set(calls[1:]) == {1}
    most = {"fmn": 13, "ddn": 14, "fab": 3 + 2 * 3 * 10}[attack]
    assert len(calls) == most - 1  # found inside the budget: nothing is projected
    assert torch.equal(result[:3], clips[:3])
    calls.clear()
    assert torch.equal(ATTACKS[attack](model, clips[:3], labels[:3], Budget("l2", clip=1.0), seeds[:3]), clips[:3])
    assert calls == [3]


@pytest.mark.parametrize("attack", ATTACKS)
def test_one_run_serves_every_larger_radius(attack):
    model, clips, labels, seeds = tiny()
    once, again = (ATTACKS[attack](model, clips, labels, Budget("l2", clip=r), seeds, steps=10) for r in (5.0, 15.0))
    sizes = [(result - clips).flatten(1).norm(dim=1) for result in (once, again)]
    torch.testing.assert_close(*sizes, rtol=1e-3, atol=0)


def test_a_radius_of_zero_changes_nothing():
    model, clips, labels, seeds = tiny(3)
    radii = torch.tensor([0.0, 20.0, 0.0])
    for budget in (Budget("l2", clip=radii), Budget("l2", frame=radii, clip=20.0), Budget("linf", radii / 20)):
        result = fmn(model, clips, labels, budget, seeds, steps=20)
        assert (result != clips).flatten(1).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_surrogate_is_fooled_as_far_as_the_budget_allows(attack):
    model, clips, labels, seeds = tiny()
    budget = Budget("l2", clip=5.0)
    gaps = []
    for model.surrogate in (False, True):
        result = ATTACKS[attack](model, clips, labels, budget, seeds, steps=10)
        assert bool((budget.size(result - clips) <= 1).all())
        gaps.append(margin(model(result), labels))
    assert bool((gaps[1] >= gaps[0]).all())
    assert bool((gaps[1] > gaps[0]).any())


@pytest.mark.parametrize("attack", [fmn, ddn])
def test_targets_are_reached(attack):
    model, clips, labels, seeds = tiny()
    result = attack(model, clips, labels, Budget("l2", clip=30.0), seeds, steps=40, target="next")
    assert torch.equal(model(result).argmax(1), (labels + 1) % 4)


def test_fmn_finds_no_more_than_pgd_needs():
    """At 1/1.05 of the norm that FMN found, 100 steps of PGD break at most one clip of ten."""
    model, clips, labels, seeds = tiny(10, frames=2)
    found, norms = minimum_norms(rv.load_attack("fmn:steps=300"), model, clips, labels, seeds)
    budget = Budget("l2", clip=norms / 1.05)
    result = pgd(model, clips, labels, budget, seeds, steps=100, step_size=0.1, random_start=False)
    assert int((model(result).argmax(1) != labels).sum()) <= 1
    assert bool((model(found).argmax(1) != labels).all())


def test_what_an_attack_does_not_serve_it_refuses_by_name():
    model, clips, labels, seeds = tiny(1)
    with pytest.raises(BudgetError, match="fmn and fab"):
        ddn(model, clips, labels, Budget("linf", "8/255"), seeds)
    for budget in (Budget("l2", frame=1.0), Budget("l2", frame=1.0, clip=2.0)):
        result = fab(model, clips, labels, budget, seeds, steps=3)
        assert bool((budget.size(result - clips) <= 1).all())
    with pytest.raises(BudgetError, match="frame or clip"):
        minimum_norms(fmn, model, clips, labels, seeds, per="video")
    for attack in ATTACKS.values():
        with pytest.raises(CardError, match="at least 1"):
            attack(model, clips, labels, Budget("l2", clip=1.0), seeds, steps=0)
    with pytest.raises(CardError, match="gamma"):
        ddn(model, clips, labels, Budget("l2", clip=1.0), seeds, gamma=1.0)
