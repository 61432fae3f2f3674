"""Flicker: one colour a frame, whatever is clipped when it is shown."""

import pytest
import torch
from linear import H, LinearVideo, T, W

from robustvid.attacks import flicker as module
from robustvid.attacks.flicker import flicker, regulariser, rendered, roughness, thickness
from robustvid.attacks.goal import Goal
from robustvid.attacks.gradient import Problem
from robustvid.budget import Budget, frames_touched
from robustvid.losses import margin
from robustvid.testing import TinyVideoNet

BUDGETS = [
    Budget("linf", "8/255"),
    Budget("linf", "8/255", frames=2),
    Budget("l2", frame=0.5),
    Budget("l2", clip=1.0),
    Budget("l2", frame=0.5, clip=1.0, frames=3),
]


def clips_like(count=3, low=0.3, high=0.7, dtype=torch.float32):
    noise = torch.rand(count, 3, 6, 12, 16, generator=torch.Generator().manual_seed(2), dtype=dtype)
    return low + (high - low) * noise


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: budget.describe())
def test_every_frame_gets_one_colour_inside_the_budget(budget):
    model, clips = TinyVideoNet(4).eval(), clips_like(dtype=torch.float64)
    model.double()
    labels = model(clips).argmax(1)
    delta = flicker(model, clips, labels, budget, torch.arange(3), steps=6) - clips
    assert float(delta.std((3, 4)).max()) < 1e-12
    assert float(delta.abs().max()) > 0
    assert bool((budget.size(delta) <= 1).all())
    if budget.frames:
        assert bool((frames_touched(delta) <= budget.frames).all())


def test_only_what_is_shown_is_clipped(monkeypatch):
    """On clips that reach black and white the state stays uniform: every pixel shows x + u, cut to [0, 1], of one u."""
    model, clips = TinyVideoNet(4).eval(), clips_like(low=0.0, high=1.0).round(decimals=1)
    labels, states = model(clips).argmax(1), []
    monkeypatch.setattr(module, "rendered", lambda x, u: states.append((x, u)) or rendered(x, u))
    model.surrogate = True  # climb to the end
    result = flicker(model, clips, labels, Budget("linf", "40/255"), torch.arange(3), steps=8)
    assert all(colours.shape == (3, 3, 6, 1, 1) for _, colours in states)
    assert any(torch.equal(result[0], rendered(x, u)[0].detach()) for x, u in states)
    assert float((result - clips).std((3, 4)).max()) > 0.01  # something was cut


def test_gradient_of_a_colour_is_the_sum_over_its_pixels():
    model, clips = TinyVideoNet(4).eval().double(), clips_like(dtype=torch.float64)
    goal = Goal(model(clips).argmax(1), "margin")
    problem = Problem(clips, goal, Budget("linf", "8/255"), torch.arange(3), None)
    grad, _, _ = module._gradient(model, problem, torch.zeros(3, 3, 6, 1, 1, dtype=torch.float64), 0.05)
    leaf = clips.clone().requires_grad_()
    (pixels,) = torch.autograd.grad(module._Loss(goal, 0.05).value(model(leaf)).sum(), leaf)
    torch.testing.assert_close(grad, pixels.sum((3, 4), keepdim=True))


def test_linear_classifier_reaches_the_closed_form():
    model = LinearVideo()
    clips = torch.full((1, 3, T, H, W), 0.5, dtype=torch.float64)
    result = flicker(
        model, clips, torch.zeros(1, dtype=torch.long), Budget("linf", "2/255"), torch.arange(1), weight=0.0
    )
    gain = model(result)[:, 1] - model(clips)[:, 1]
    wanted = 2 / 255 * model.difference.sum((2, 3)).abs().sum()
    torch.testing.assert_close(gain, wanted[None], rtol=1e-2, atol=0)


def test_the_loss_is_that_of_the_paper():
    """max(0, min(ℓ²/m, ℓ)) with ℓ = p_y - max p_i + m: quadratic near the decision, 0 beyond it by m."""
    probabilities = torch.tensor([[0.9, 0.1], [0.51, 0.49], [0.45, 0.55], [0.1, 0.9]], dtype=torch.float64)
    found = module._Loss(Goal(torch.zeros(4, dtype=torch.long), "margin"), 0.05).value(probabilities.log())
    torch.testing.assert_close(found, torch.tensor([0.85, 0.07, 0.0, 0.0], dtype=torch.float64))
    at_half = module._Loss(Goal(torch.zeros(1, dtype=torch.long), "margin"), 0.05).value(torch.zeros(1, 2).double())
    torch.testing.assert_close(at_half, torch.tensor([0.05], dtype=torch.float64))


def test_thickness_and_roughness():
    colours = torch.tensor([0.1, -0.1, 0.1, -0.1]).reshape(1, 1, 4, 1, 1).expand(1, 3, 4, 1, 1)
    assert thickness(colours).tolist() == pytest.approx([10.0])
    assert roughness(colours).tolist() == pytest.approx([20.0])
    constant = torch.full((1, 3, 4, 1, 1), 0.2)
    assert roughness(constant).tolist() == [0.0]
    assert regulariser(constant, 0.5).tolist() == pytest.approx([0.5 * 0.04])
    assert regulariser(colours, 0.5).tolist() == pytest.approx([0.5 * 0.01 + 0.5 * (0.04 + 0.16)])


def test_a_heavier_regulariser_makes_it_smoother():
    model, clips = TinyVideoNet(4).eval(), clips_like(6)
    labels, budget = model(clips).argmax(1), Budget("linf", "2/255")
    rough = [
        float(
            roughness(
                (flicker(model, clips, labels, budget, torch.arange(6), weight=weight) - clips).mean(
                    (3, 4), keepdim=True
                )
            ).mean()
        )
        for weight in (0.0, 1e6)
    ]
    assert rough[1] < rough[0]


def test_it_works_and_stops_when_it_has():
    model, clips = TinyVideoNet(4).eval(), clips_like(6)
    labels, calls = model(clips).argmax(1), []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    result = flicker(model, clips, labels, Budget("linf", 0.4), torch.arange(6), steps=40)
    assert len(calls) <= 41
    assert calls[0] == 6
    with torch.no_grad():
        before, after = (margin(model(shown), labels).mean() for shown in (clips, result))
    assert float(after) > float(before)
