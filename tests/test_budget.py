"""Projections are exact, never enlarge and leave the inside alone; steepest points are the best there are."""

import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.optimize import minimize

from robustvid.budget import Budget, format_radius, frames_touched, parse_radius
from robustvid.errors import BudgetError

SCOPES = ["linf", "l2-frame", "l2-clip", "l2-both"]


@st.composite
def cases(draw):
    """A budget with plain or per-clip radii, and perturbations inside and outside it."""
    batch, frames = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    scope, per_clip = draw(st.sampled_from(SCOPES)), draw(st.booleans())
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)

    def radius(low, high):
        values = low + (high - low) * torch.rand(batch, generator=generator, dtype=torch.float64)
        return values if per_clip else float(values[0])

    count = None
    if draw(st.booleans()):
        count = (
            torch.randint(1, frames + 1, (batch,), generator=generator) if per_clip else draw(st.integers(1, frames))
        )
    frame = radius(0.0, 0.5) if scope != "l2-clip" else None
    clip = radius(0.0, 1.0) if scope in {"l2-clip", "l2-both"} else None
    budget = Budget("linf" if scope == "linf" else "l2", frame, clip, count)
    scale = draw(st.sampled_from([0.01, 0.1, 1.0, 30.0]))
    # Frames of very different size, some of them zero: where sorting and division go wrong.
    per_frame = torch.rand(batch, 1, frames, 1, 1, generator=generator) ** 4
    per_frame *= torch.rand(batch, 1, frames, 1, 1, generator=generator) > 0.2
    delta = scale * per_frame * torch.randn(batch, 3, frames, height, width, generator=generator)
    return budget, delta.double(), generator


@settings(max_examples=150, deadline=None)
@given(cases())
def test_projection_is_inside_idempotent_and_never_enlarges(case):
    budget, delta, _ = case
    projected = budget.project(delta)
    assert bool((budget.size(projected) <= 1).all())
    torch.testing.assert_close(budget.project(projected), projected, rtol=1e-9, atol=1e-12)
    assert bool((projected.abs() <= delta.abs() + 1e-15).all())
    assert bool((projected * delta >= 0).all())


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_inside_is_left_untouched(case):
    budget, delta, _ = case
    inside = 0.999 * budget.project(delta)
    assert torch.equal(budget.project(inside), inside)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_no_point_of_the_budget_is_nearer(case):
    """For convex budgets ⟨z - P(z), q - P(z)⟩ ≤ 0 for every feasible q; with frames limited, distances are compared."""
    budget, delta, generator = case
    projected = budget.project(delta)
    for _ in range(5):
        other = budget.project(torch.randn(delta.shape, generator=generator, dtype=delta.dtype) * delta.abs().amax())
        nearer = (delta - other).square().sum((1, 2, 3, 4)) - (delta - projected).square().sum((1, 2, 3, 4))
        assert bool((nearer >= -1e-9 * (1 + delta.square().sum((1, 2, 3, 4)))).all())


@settings(max_examples=100, deadline=None)
@given(cases())
def test_steepest_beats_random_points_of_the_budget(case):
    budget, grad, generator = case
    best = budget.steepest(grad)
    assert bool((budget.size(best) <= 1).all())
    gain = (best * grad).sum((1, 2, 3, 4))
    for _ in range(5):
        other = budget.project(torch.randn(grad.shape, generator=generator, dtype=grad.dtype))
        assert bool(((other * grad).sum((1, 2, 3, 4)) <= gain + 1e-9).all())


@settings(max_examples=50, deadline=None)
@given(cases())
def test_start_is_inside_and_belongs_to_the_clip(case):
    budget, delta, _ = case
    seeds = torch.arange(len(delta)) + 3
    start = budget.start(delta, seeds)
    assert bool((budget.size(start) <= 1).all())
    last = budget.select(torch.tensor([len(delta) - 1])).start(delta[-1:], seeds[-1:])
    torch.testing.assert_close(last, start[-1:], rtol=0, atol=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.floats(0.05, 1.0), st.floats(0.05, 2.0))
def test_frame_and_clip_together_agree_with_a_numerical_solver(seed, frames, eps_frame, eps_clip):
    rng = np.random.default_rng(seed)
    norms = rng.exponential(0.6, frames)
    delta = torch.zeros(1, 1, frames, 1, 2, dtype=torch.float64)
    delta[0, 0, :, 0, 0] = torch.from_numpy(norms)
    ours = Budget("l2", eps_frame, eps_clip).project(delta)[0, 0, :, 0, 0].numpy()
    start = np.minimum(norms, eps_frame)
    start *= min(1.0, eps_clip / np.linalg.norm(start))
    solved = minimize(
        lambda r: ((r - norms) ** 2).sum(),
        x0=start,
        jac=lambda r: 2 * (r - norms),
        bounds=[(0, eps_frame)] * frames,
        constraints={"type": "ineq", "fun": lambda r: eps_clip**2 - (r**2).sum(), "jac": lambda r: -2 * r},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    theirs = np.clip(solved.x, 0, eps_frame)  # the solver leaves its constraints by about 1e-9
    theirs *= min(1.0, eps_clip / np.linalg.norm(theirs))
    assert ((ours - norms) ** 2).sum() <= ((theirs - norms) ** 2).sum() + 1e-12
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert (ours <= eps_frame + 1e-12).all()
    assert np.linalg.norm(ours) <= eps_clip + 1e-12


def test_per_clip_l2_of_root_t_times_eps_contains_per_frame_l2():
    delta = torch.randn(4, 3, 8, 6, 6)
    per_frame = Budget("l2", frame=0.3).project(delta)
    assert bool((Budget("l2", clip=0.3 * math.sqrt(8)).size(per_frame) <= 1).all())
    assert bool((Budget("l2", frame=0.3).size(Budget("l2", clip=0.3).project(delta)) <= 1).all())


def test_size_forgives_rounding_and_nothing_else():
    clips = torch.rand(2, 3, 4, 16, 16)
    for eps in ("1/1020", "1/255", "8/255"):
        budget = Budget("linf", eps)
        result = (clips + budget.steepest(torch.randn_like(clips))).clamp(0, 1)
        assert bool((budget.size(result - clips) <= 1).all())
        assert bool((budget.size(1.01 * budget.steepest(torch.randn_like(clips))) > 1).all())
    budget = Budget("l2", clip=0.05)
    result = (clips + budget.steepest(torch.randn_like(clips))).clamp(0, 1)
    assert bool((budget.size(result - clips) <= 1).all())


def test_one_pixel_in_one_frame_too_many_is_outside():
    delta = torch.zeros(1, 3, 5, 4, 4)
    delta[0, 0, :3, 0, 0] = 1e-6
    assert float(Budget("linf", "8/255", frames=2).size(delta)) == pytest.approx(1.5)
    assert frames_touched(delta).tolist() == [3]


def test_zero_radius_and_zero_gradient():
    delta = torch.randn(2, 3, 4, 5, 5)
    for budget in (Budget("linf", 0), Budget("l2", clip=0.0), Budget("l2", 0.0, 0.0)):
        assert not budget.project(delta).any()
        assert not budget.steepest(delta).any()
        assert budget.size(torch.zeros_like(delta)).tolist() == [0, 0]
        assert budget.size(delta).tolist() == [math.inf, math.inf]
    for budget in (Budget("linf", 0.1), Budget("l2", 0.1), Budget("l2", 0.1, 0.2), Budget("l2", clip=0.1)):
        assert not budget.steepest(torch.zeros_like(delta)).any()


def test_tiny_gradients_give_full_steps():
    budget = Budget("l2", clip=1.0)
    step = budget.steepest(torch.full((1, 3, 2, 4, 4), 1e-35))
    torch.testing.assert_close(torch.linalg.vector_norm(step), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget("linf", "4/255"), "linf frame 4/255"),
        (Budget("linf", Fraction(12, 255)), "linf frame 12/255"),
        (Budget("l2", clip=2.0), "l2 clip 2.0"),
        (Budget("linf", "8/255", frames=4), "linf frame 8/255, 4 frames"),
        (Budget("l2", 0.5, 1.5, frames=1), "l2 frame 0.5, clip 1.5, 1 frame"),
    ],
)
def test_describe(budget, words):
    assert budget.describe() == words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l3", "frame": 1}, "no norm 'l3'"),
        ({"norm": "linf", "clip": 0.1}, "same set"),
        ({"norm": "linf", "frame": 8}, "did you mean 8/255"),
        ({"norm": "linf", "frame": "300/255"}, r"frame=300/255 is larger than the whole pixel range \[0, 1\]$"),
        ({"norm": "linf", "frame": "8/0"}, "not a radius"),
        ({"norm": "l2"}, "needs a radius"),
        ({"norm": "l2", "frame": -1}, "0 or more"),
        ({"norm": "l2", "frame": float("nan")}, "finite"),
        ({"norm": "l2", "frame": True}, "not a radius"),
        ({"norm": "l2", "frame": 1, "frames": 0}, "at least 1"),
        ({"norm": "l2", "frame": 1, "frames": 10**400}, "less than 1,000,000"),
        ({"norm": "l2", "frame": 1, "frames": 1.5}, "whole number"),
    ],
)
def test_nonsense_is_refused_with_advice(arguments, message):
    with pytest.raises(BudgetError, match=message):
        Budget(**arguments)


def test_radii_keep_the_way_they_are_written():
    assert parse_radius("12/255") == Fraction(12, 255)
    assert [format_radius(parse_radius(text)) for text in ("12/255", "0.5", "2")] == ["12/255", "0.5", "2.0"]


@pytest.mark.parametrize("frames", [None, 1, 4])
@pytest.mark.parametrize("moving", [1, 4, 8])
def test_frames_at_the_cap_that_use_up_the_clip_exactly(frames, moving):
    """clip = √m · frame with the other frames zero: once 0 / 0, and the perturbation came back as it was."""
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        delta = 10 * torch.randn(1, 3, 8, 8, 8, generator=generator)
        delta[:, :, moving:] = 0
        for count in (1, 2, 4):
            budget = Budget("l2", 0.1, 0.1 * math.sqrt(count), frames)
            for result in (budget.project(delta), budget.steepest(delta)):
                assert bool(torch.isfinite(result).all())
                assert float(budget.size(result)) <= 1
            assert float(budget.size(budget.steepest(delta))) > 0.999 or frames == 1


@pytest.mark.parametrize("radii", [[-0.1], [math.nan], [math.inf]])
def test_radii_in_tensors_are_checked_too(radii):
    with pytest.raises(BudgetError, match="finite radius"):
        Budget("linf", torch.tensor(radii))
    with pytest.raises(BudgetError, match="at least 1"):
        Budget("linf", 0.1, frames=torch.tensor([0]))


def test_numbers_of_numpy_are_numbers():
    assert Budget("l2", np.float32(0.5), frames=np.int64(2)).describe() == "l2 frame 0.5, 2 frames"


EVERY = [
    Budget("linf", frame="8/255"),
    Budget("linf", frame=torch.tensor([0.1, 0.3])),
    Budget("linf", frame=0.2, frames=torch.tensor([1, 2])),
    Budget("l2", frame=0.5),
    Budget("l2", clip=torch.tensor([0.5, 9.0])),
    Budget("l2", frame=0.5, clip=0.8),
    Budget("l2", clip=0.8, frames=2),
]


@pytest.mark.parametrize("budget", EVERY, ids=Budget.describe)
def test_in_place_the_projection_is_the_same_and_else_nothing_is_changed(budget):
    delta = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    before = delta.clone()
    projected = budget.project(delta)
    assert torch.equal(delta, before)
    assert torch.equal(budget.project_(delta), projected)
    budget.steepest(before)
    assert torch.equal(before, torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("length", [0.3, torch.tensor([0.3, 2.0]).view(2, 1, 1, 1, 1)], ids=["one", "each"])
@pytest.mark.parametrize("budget", EVERY, ids=Budget.describe)
def test_a_step_is_the_steepest_point_times_its_length(budget, length):
    grad = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(budget.steepest(grad, length), length * budget.steepest(grad))


def test_a_scaled_budget_stays_in_the_pixel_range():
    assert Budget("linf", "8/255", frames=2).scaled(3) == Budget("linf", "24/255", frames=2)
    assert Budget("linf", 0.5).scaled(3) == Budget("linf", 1.0)
    assert Budget("l2", frame=0.5, clip=2.0).scaled(3) == Budget("l2", frame=1.5, clip=6.0)
    assert Budget("linf", torch.tensor([0.1, 0.5])).scaled(3).frame.tolist() == pytest.approx([0.3, 1.0])
