"""What a decision-only attack may read, the linear classifier's optimum, and an honest count of queries."""

import math

import pytest
import torch

import robustvid as rv
from robustvid.attacks.rays import _blocks, rays
from robustvid.budget import Budget
from robustvid.errors import CardError
from robustvid.testing import BUDGETS, TinyVideoNet, check_attack


class Decisions(torch.nn.Module):
    """Tells the predicted class and nothing else, without gradient; counts the clips that it was shown."""

    def __init__(self, network):
        super().__init__()
        self.network, self.shown = network, 0

    def forward(self, clips):
        assert not clips.requires_grad
        assert bool(((clips >= 0) & (clips <= 1)).all())
        self.shown += len(clips)
        logits = self.network(clips).detach()
        return torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits)


class Linear(torch.nn.Module):
    """Class 1 as soon as w·(x - 1/2) exceeds ``threshold``."""

    def __init__(self, shape, threshold, seed=0):
        super().__init__()
        self.weight = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed)).double()
        self.threshold = threshold

    def forward(self, clips):
        rise = ((clips - 0.5) * self.weight).sum((1, 2, 3, 4)) - self.threshold
        return torch.stack([torch.zeros_like(rise), rise], 1)


def grey(count, *shape):
    return torch.full((count, 3, *shape), 0.5, dtype=torch.float64)


def broken(model, clips, budget, **settings):
    labels = torch.zeros(len(clips), dtype=torch.long)
    result = rays(model, clips, labels, budget, torch.arange(len(clips)), **settings)
    assert bool((budget.size(result - clips) <= 1).all())
    return model(result).argmax(1) != 0


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: budget.describe())
def test_only_the_predicted_class_is_read(budget):
    network, clips = TinyVideoNet(4).eval(), torch.rand(5, 3, 4, 16, 16)
    labels, seeds = network(clips).argmax(1), torch.arange(5)
    by_scores, by_decisions = (
        rays(model, clips, labels, budget, seeds, queries=60) for model in (network, Decisions(network))
    )
    assert torch.equal(by_scores, by_decisions)
    assert not torch.equal(by_scores, clips)


def test_contract():
    check_attack(rv.load_attack("rays:queries=8"), classes=(2, 10))


@pytest.mark.parametrize(("share", "breaks"), [(0.95, True), (1.001, False)])
def test_linear_classifier_breaks_up_to_the_closed_form(share, breaks):
    """ε·‖w‖₁ is the most that any linf perturbation gains; the signs that gain it are found one block at a time."""
    eps, shape = 0.05, (2, 2, 4)
    model = Decisions(Linear(shape, 0.0))
    model.network.threshold = share * eps * float(model.network.weight.abs().sum())
    settings = {"queries": 1000, "tolerance": 1e-3}
    assert bool(broken(model, grey(1, *shape), Budget("linf", eps), **settings).all()) == breaks


@pytest.mark.parametrize(
    ("budget", "gain"),
    [
        (Budget("l2", frame=0.2), lambda w: 0.2 * w.abs().sum() / math.sqrt(w[:, 0].numel())),
        (Budget("l2", clip=0.2), lambda w: 0.2 * w.abs().sum() / math.sqrt(w.numel())),
        (Budget("l2", frame=0.2, clip=0.2), lambda w: 0.2 * w.abs().sum() / math.sqrt(w.numel())),
        (Budget("linf", 0.05, frames=1), lambda w: 0.05 * w.abs().sum((0, 2, 3)).max()),
        (Budget("l2", clip=0.2, frames=1), lambda w: 0.2 * w.abs().sum((0, 2, 3)).max() / math.sqrt(w[:, 0].numel())),
    ],
    ids=lambda value: value.describe() if isinstance(value, Budget) else "",
)
def test_rays_of_every_budget_are_as_long_as_it_allows(budget, gain):
    """All values move equally far: the signs of w gain (their share of the radius)·‖w‖₁ over the frames in use."""
    shape = (2, 2, 2)
    model = Decisions(Linear(shape, 0.0))
    for share, breaks in ((0.95, True), (1.001, False)):
        model.network.threshold = share * float(gain(model.network.weight))
        assert bool(broken(model, grey(1, *shape), budget, queries=500, tolerance=1e-3).all()) == breaks


def test_k_frames_are_chosen_among_windows_by_their_radius():
    """The weights grow with time and are positive: the last window in a row is met first, at once inside the budget."""
    network = Linear((8, 2, 2), 0.0)
    network.weight = network.weight.abs() * torch.linspace(0.2, 3, 8)[None, :, None, None]
    network.threshold = 0.999 * 0.05 * float(network.weight[:, -2:].sum())
    model, clips = Decisions(network), grey(1, 8, 2, 2)
    result = rays(model, clips, torch.tensor([0]), Budget("linf", 0.05, frames=2), torch.arange(1), queries=60)
    touched = (result - clips).abs().amax((0, 1, 3, 4)).nonzero().flatten()
    assert touched.tolist() == [6, 7]
    assert bool(model(result).argmax(1) == 1)


@pytest.mark.parametrize("queries", [2, 3, 40])
def test_a_clip_that_stands_gets_every_query_and_never_one_more(queries):
    model, clips = Decisions(TinyVideoNet(4)).eval(), torch.rand(3, 3, 4, 16, 16)
    labels = model(clips).argmax(1)
    model.shown = 0
    rays(model, clips, labels, Budget("linf", 1e-6), torch.arange(3), queries=queries)
    assert model.shown == 3 * queries


def test_broken_clips_cost_one_query():
    model, clips = Decisions(TinyVideoNet(4)).eval(), torch.rand(4, 3, 4, 16, 16)
    labels = model(clips).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    model.shown = 0
    result = rays(model, clips, labels, Budget("linf", 1e-6), torch.arange(4), queries=20)
    assert model.shown == 3 + 20
    assert torch.equal(result[:3], clips[:3])


def test_a_clip_is_left_alone_as_soon_as_it_breaks_inside_the_budget():
    shape = (2, 2, 4)
    model = Decisions(Linear(shape, -1.0))
    model.network.weight.abs_()
    model.network.threshold = 0.5 * 0.05 * float(model.network.weight.sum())
    assert bool(broken(model, grey(1, *shape), Budget("linf", 0.05), queries=1000).all())
    assert model.shown == 3  # the clip, the ray at λ = 1, and this test's own look


def test_companions_change_nothing():
    model, clips = TinyVideoNet(4).double().eval(), torch.rand(4, 3, 4, 16, 16).double()
    labels = model(clips).argmax(1)
    frames = torch.tensor([1, 4, 2, 2])
    budget = Budget("linf", torch.tensor([0.01, 0.02, 0.0, 0.05]), frames=frames)
    together = rays(model, clips, labels, budget, torch.arange(4), queries=40)
    for i in range(4):
        one = torch.tensor([i])
        alone = rays(model, clips[one], labels[one], budget.select(one), one, queries=40)
        assert torch.equal(alone, together[one])
    assert torch.equal(together[2], clips[2])  # nothing to move


def test_surrogates_spend_all_queries_on_a_shorter_radius():
    shape = (2, 2, 4)
    model = Decisions(Linear(shape, 0.1))
    model.surrogate = True
    clips, labels, budget = grey(2, *shape), torch.zeros(2, dtype=torch.long), Budget("linf", 0.1)
    gains = []
    for queries in (30, 400):
        model.shown = 0
        result = rays(model, clips, labels, budget, torch.arange(2), queries=queries)
        assert model.shown == 2 * queries
        gains.append(float(model.network(result)[0, 1]))
    assert gains[1] > gains[0] > 0


def test_blocks_halve_time_first_then_the_frame_and_channels_last():
    blocks = _blocks((3, 3, 2, 4), 10_000)
    sizes = [tuple(stop - start for start, stop in block) for block in blocks]
    assert sizes[0] == (3, 3, 2, 4)
    assert sizes[1:3] == [(3, 1, 2, 4), (3, 2, 2, 4)]
    assert sizes[3:6] == [(3, 1, 2, 4)] * 3
    assert sizes[-1] == (1, 1, 1, 1)
    finest = {tuple(start for start, _ in block) for block in blocks[-72:]}
    assert len(finest) == 72  # every value of 3 x 3 x 2 x 4 has its own block
    assert len(_blocks((3, 8, 64, 64), 1000)) == 1000


@pytest.mark.parametrize("settings", [{"queries": 1}, {"tolerance": 0.0}, {"tolerance": 1.0}, {"tolerance": math.nan}])
def test_settings_that_attack_nothing_are_refused(settings):
    model, clips = TinyVideoNet(4).eval(), torch.rand(1, 3, 4, 16, 16)
    with pytest.raises(CardError, match="give"):
        rays(model, clips, torch.tensor([0]), Budget("linf", "8/255"), torch.arange(1), **settings)
