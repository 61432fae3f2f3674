"""The estimate of the slope, the closed form over patches, and an honest count of queries."""

import math

import pytest
import torch
from linear import BUDGETS, B, H, LinearVideo, T, W, worst_case

import robustvid as rv
from robustvid.attacks.goal import Goal
from robustvid.attacks.nes import grid, nes, slopes, spread
from robustvid.budget import Budget
from robustvid.errors import CardError, UnknownNameError
from robustvid.losses import margin
from robustvid.testing import TinyVideoNet, check_attack

PATCH = 4  # divides neither the height nor the width of the linear classifier's clips


class Numb(torch.nn.Module):
    """A model whose answers carry no gradient; counts how often each clip of the batch was shown."""

    def __init__(self, network):
        super().__init__()
        self.network, self.shown = network, 0

    def forward(self, clips):
        assert not clips.requires_grad
        assert bool(((clips >= 0) & (clips <= 1)).all())
        self.shown += len(clips)
        return self.network(clips.detach()).detach()


def grey(count):
    return torch.full((count, 3, T, H, W), 0.5, dtype=torch.float64)


def over_patches(difference, reduce, side=PATCH):
    """The difference of each patch, cut off at the edges, summed or averaged in plain loops, as pixels."""
    result = difference.clone()
    for top in range(0, H, side):
        for left in range(0, W, side):
            window = (..., slice(top, top + side), slice(left, left + side))
            result[window] = reduce(difference[window], (0, 2, 3), keepdim=True)
    return result


def test_slopes_are_unbiased_on_a_linear_model():
    model, clips, rounds = LinearVideo(), grey(50), 100
    basis = torch.ones_like(clips)
    noise = torch.randn(50, rounds, *grid(clips, PATCH), generator=torch.Generator().manual_seed(1)).double()
    goal = Goal(torch.zeros(50, dtype=torch.long), "margin")
    with torch.no_grad():
        found = slopes(model, clips, goal, basis, noise, sigma=1e-3, patch=PATCH, ranks=False, at_once=20).mean(0)
    found = spread(found, PATCH, clips)
    true = over_patches(model.difference, torch.sum)[:1]
    assert float(torch.cosine_similarity(found.flatten(), true.flatten(), dim=0)) >= 0.99
    assert float((found * true).sum() / true.square().sum()) == pytest.approx(1, abs=0.05)


def test_ranks_keep_the_direction():
    model, clips = LinearVideo(), grey(50)
    noise = torch.randn(50, 100, *grid(clips, PATCH), generator=torch.Generator().manual_seed(1)).double()
    goal = Goal(torch.zeros(50, dtype=torch.long), "margin")
    with torch.no_grad():
        found = slopes(model, clips, goal, torch.ones_like(clips), noise, sigma=1e-3, patch=PATCH, ranks=True)
    true = over_patches(model.difference, torch.sum)[:1]
    found = spread(found.mean(0), PATCH, clips)
    assert float(torch.cosine_similarity(found.flatten(), true.flatten(), dim=0)) >= 0.9


def test_how_many_are_shown_at_once_changes_nothing():
    model, clips = TinyVideoNet(4).double().eval(), torch.rand(2, 3, 2, 10, 9).double()
    noise = torch.randn(2, 5, *grid(clips, 4)).double()
    goal = Goal(torch.tensor([0, 1]), "margin")
    one, many = (
        slopes(model, clips, goal, torch.ones_like(clips), noise, sigma=0.01, patch=4, ranks=False, at_once=at_once)
        for at_once in (1, 4)
    )
    torch.testing.assert_close(one, many)


@pytest.mark.parametrize("name", BUDGETS)
def test_linear_classifier_reaches_the_closed_form_over_patches(name):
    """The best that moves patches as one is the worst case of a classifier with averaged weights."""
    model, budget, clips = LinearVideo(), BUDGETS[name], grey(B)
    labels = torch.zeros(B, dtype=torch.long)
    settings = {"queries": 2002, "samples": 2000, "step_size": 1.0, "patch": 8, "ranks": False}
    result = nes(model, clips, labels, budget, torch.arange(B), **settings)
    blocks = over_patches(model.difference, torch.mean, 8).expand_as(model.difference)
    gain = (model(result)[:, 1] - model(clips)[:, 1]) / worst_case(budget, blocks)
    assert bool((gain > 0.93).all())
    assert bool((gain < 1 + 1e-5).all())
    assert bool((budget.size(result - clips) <= 1).all())


def test_contract():
    check_attack(rv.load_attack("nes:queries=9,samples=3"), classes=(2, 10))


@pytest.mark.parametrize("target", [None, 2, "least-likely"])
@pytest.mark.parametrize("queries", [4, 5, 21, 50])
def test_a_clip_that_stands_gets_every_query_and_never_one_more(queries, target):
    model, clips = Numb(TinyVideoNet(4)).eval(), torch.rand(3, 3, 4, 16, 16)
    labels, seeds = model(clips).argmax(1), torch.arange(3)
    model.shown = 0
    nes(model, clips, labels, Budget("linf", 1e-6), seeds, queries=queries, samples=6, target=target)
    assert 3 * (queries - 2) <= model.shown <= 3 * queries  # two cannot buy a slope and a look


def test_broken_clips_cost_one_query():
    model, clips = Numb(TinyVideoNet(4)).eval(), torch.rand(4, 3, 4, 16, 16)
    labels = model(clips).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    model.shown = 0
    result = nes(model, clips, labels, Budget("linf", 1e-6), torch.arange(4), queries=20, samples=6)
    assert model.shown <= 3 + 20
    assert torch.equal(result[:3], clips[:3])


def test_surrogates_spend_all_queries():
    model, clips = Numb(TinyVideoNet(4)).eval(), torch.rand(2, 3, 4, 16, 16)
    labels = (model(clips).argmax(1) + 1) % 4
    model.shown, model.surrogate = 0, True
    result = nes(model, clips, labels, Budget("linf", "8/255"), torch.arange(2), queries=29, samples=6)
    assert model.shown == 2 * 29
    assert bool((margin(model(result), labels) > margin(model(clips), labels)).all())


def test_queries_break_clips_that_noise_does_not():
    model, clips = Numb(TinyVideoNet(4)).eval(), torch.rand(6, 3, 4, 16, 16)
    labels, budget = model(clips).argmax(1), Budget("linf", "4/255")
    few, many = (
        margin(model(nes(model, clips, labels, budget, torch.arange(6), queries=q, patch=4)), labels) for q in (22, 400)
    )
    noise = margin(model((clips + budget.start(clips, torch.arange(6))).clamp(0, 1)), labels)
    assert float(many.mean()) > float(few.mean())
    assert bool((many > noise).all())


def test_k_frames_are_the_salient_ones():
    model = LinearVideo()
    budget = Budget("linf", "4/255", frames=2)
    settings = {"queries": 400, "samples": 200, "patch": PATCH, "ranks": False}
    result = nes(model, grey(1), torch.zeros(1, dtype=torch.long), budget, torch.arange(1), **settings)
    touched = (result - grey(1)).abs().amax((0, 1, 3, 4)).nonzero().flatten()
    best = over_patches(model.difference, torch.mean).abs().sum((0, 2, 3)).topk(2).indices.sort().values
    assert touched.tolist() == best.tolist()


def test_random_tentative_signs_are_followed_or_opposed_patch_by_patch():
    model, clips = LinearVideo(), grey(1)
    settings = {"queries": 104, "samples": 102, "patch": PATCH, "tentative": "random", "step_size": 1.0}
    delta = (
        nes(model, clips, torch.zeros(1, dtype=torch.long), Budget("linf", 0.1), torch.arange(1), **settings) - clips
    )
    assert delta.abs().unique().numel() <= 2  # 0.1, up to the last bit of 0.5 ± 0.1
    assert delta[0, :, 0, :PATCH, :PATCH].sign().unique().tolist() == [-1, 1]
    other = (
        nes(model, clips, torch.zeros(1, dtype=torch.long), Budget("linf", 0.1), torch.arange(1) + 1, **settings)
        - clips
    )
    assert not torch.equal(other.sign(), delta.sign())


@pytest.mark.parametrize(
    "settings",
    [
        {"queries": 3},
        {"samples": 1},
        {"patch": 0},
        {"sigma": 0.0},
        {"step_size": math.nan},
        {"decay": -1.0},
        {"tentative": "imagenet"},
    ],
)
def test_settings_that_attack_nothing_are_refused(settings):
    model, clips = TinyVideoNet(4).eval(), torch.rand(1, 3, 4, 16, 16)
    with pytest.raises(CardError, match="give"):
        nes(model, clips, torch.tensor([0]), Budget("linf", "8/255"), torch.arange(1), **settings)


def test_a_loss_that_does_not_exist_is_refused():
    with pytest.raises(UnknownNameError, match="margin"):
        nes(TinyVideoNet(4), grey(1).float(), torch.tensor([0]), Budget("linf", 0.1), torch.arange(1), loss="margn")
