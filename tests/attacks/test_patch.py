"""Border and patch: what lies outside the mask stays bit for bit what it was."""

import pytest
import torch

from robustvid.attacks.patch import border, border_thickness, patch, rectangle
from robustvid.budget import Budget, frames_touched
from robustvid.errors import CardError
from robustvid.losses import margin
from robustvid.testing import TinyVideoNet

FREE = Budget("linf", 1.0)


@pytest.fixture
def problem():
    model = TinyVideoNet(4).eval()
    clips = torch.rand(5, 3, 4, 20, 28, generator=torch.Generator().manual_seed(4))
    return model, clips, model(clips).argmax(1)


def test_the_inside_of_a_border_is_untouched(problem):
    model, clips, labels = problem
    result = border(model, clips, labels, FREE, torch.arange(5), ratio=0.3, steps=5)
    thick = border_thickness(0.3, 20, 28)
    inner = (..., slice(thick, 20 - thick), slice(thick, 28 - thick))
    assert torch.equal(result[inner], clips[inner])
    changed = (result != clips).any(1).any(1)
    assert bool(changed[:, 0].any())
    assert bool(changed[:, :, -1].any())


def test_thickness_is_the_largest_that_fits():
    for height, width in [(112, 112), (64, 64), (48, 64), (9, 31)]:
        for ratio in (0.1, 0.15, 0.2, 0.5):
            thick = border_thickness(ratio, height, width)
            area = [2 * t * (height + width) - 4 * t * t for t in (thick, thick + 1)]
            assert thick == 1 or area[0] <= ratio * height * width + 1e-6
            assert area[1] > ratio * height * width
    assert border_thickness(1.0, 10, 12) == 5
    assert border_thickness(0.01, 8, 8) == 1


def test_a_patch_is_one_rectangle_of_its_area_and_nothing_else_changes(problem):
    model, clips, labels = problem
    for seed in range(6):
        mask = rectangle(clips, 0.25, seed)[0]
        assert int(mask[0].sum()) == 10 * 14
        assert bool((mask == mask[:1]).all())
    result = patch(model, clips, labels, FREE, torch.arange(5), ratio=0.25, tries=1, steps=5)
    for number in range(5):
        outside = rectangle(clips, 0.25, number).expand_as(clips[number]) == 0
        assert torch.equal(result[number][outside], clips[number][outside])
    places = {tuple(rectangle(clips, 0.25, seed)[0, 0].nonzero()[0].tolist()) for seed in range(20)}
    assert len(places) > 5


@pytest.mark.parametrize("attack", [border, patch])
def test_more_area_reaches_further(problem, attack):
    model, clips, labels = problem
    model.surrogate = True  # all steps, whatever falls
    reached = [
        float(margin(model(attack(model, clips, labels, FREE, torch.arange(5), ratio=r)), labels).mean())
        for r in (0.1, 0.4, 1.0)
    ]
    assert reached[0] < reached[1] < reached[2]


@pytest.mark.parametrize("attack", [border, patch])
def test_small_budgets_and_few_frames_hold_inside_the_mask(problem, attack):
    model, clips, labels = problem
    for budget in (Budget("linf", "8/255", frames=2), Budget("l2", clip=0.5), Budget("l2", frame=0.3, frames=1)):
        delta = attack(model, clips, labels, budget, torch.arange(5), steps=3) - clips
        assert bool((budget.size(delta) <= 1).all())
        if budget.frames:
            assert bool((frames_touched(delta) <= budget.frames).all())


def test_other_places_are_tried_while_a_clip_stands(problem):
    model, clips, labels = problem
    calls = []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    patch(model, clips, labels, Budget("linf", 1e-7), torch.arange(5), tries=3, steps=2)
    assert calls == [5] * 9


@pytest.mark.parametrize(
    ("attack", "settings"), [(border, {"ratio": 0}), (patch, {"ratio": 1.5}), (patch, {"tries": 0})]
)
def test_settings_that_mean_nothing_are_refused(problem, attack, settings):
    model, clips, labels = problem
    with pytest.raises(CardError, match="give"):
        attack(model, clips, labels, FREE, torch.arange(5), **settings)
