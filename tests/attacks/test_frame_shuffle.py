"""Frames move and no pixel changes; the best order by brute force; a model without time is not harmed at all."""

import itertools

import pytest
import torch
from linear import B, H, LinearVideo, T, W

import robustvid as rv
from robustvid.attacks.frame_shuffle import frame_shuffle
from robustvid.budget import Budget
from robustvid.contracts import frozen
from robustvid.errors import CardError
from robustvid.losses import margin
from robustvid.testing import BUDGETS, TinyVideoNet, check_attack

ANY = Budget("linf", frame=1)
MODES = ("shuffle", "freeze", "drop")


def random_clips(count=B, shape=(T, H, W)):
    return torch.rand(count, 3, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def orders(mode, frames, displacement):
    """Every order of a mode, by its definition."""
    if mode == "shuffle":
        every = itertools.permutations(range(frames))
    elif mode == "freeze":
        every = itertools.product(*[range(max(0, t - displacement), t + 1) for t in range(frames)])
    else:
        left = [k for n in range(displacement + 1) for k in itertools.combinations(range(frames - 1), n)]
        every = ([t for t in range(frames) if t not in out] + [frames - 1] * len(out) for out in left)
    return [list(o) for o in every if all(abs(s - t) <= displacement for t, s in enumerate(o))]


def shown(clips, result):
    """Which frame each position shows, for clips whose frames are all different."""
    same = (result[:, :, :, None] == clips[:, :, None]).all(1).all(-1).all(-1)
    assert bool((same.sum(2) == 1).all()), "a frame is none of the clip's"
    return same.long().argmax(2).tolist()


def brute_force(clips, weight, budget, mode, displacement):
    """The largest gain of a linear model over every order whose perturbation, measured frame by frame, fits."""
    every, places = torch.tensor(orders(mode, T, displacement)), torch.arange(T)
    best = []
    for index, clip in enumerate(clips):
        delta = clip[:, None, :] - clip[:, :, None]  # [c, t, s] = x_s - x_t
        gains = (delta * weight[:, :, None]).sum((0, 3, 4))[places, every].sum(1)
        norms = (
            delta.abs().amax((0, 3, 4)) if budget.norm == "linf" else torch.linalg.vector_norm(delta, dim=(0, 3, 4))
        )[places, every]
        one = budget.select(torch.tensor([index]))
        fits = norms.amax(1) <= float(one.frame if one.frame is not None else torch.inf)
        fits &= norms.norm(dim=1) <= float(one.clip if one.clip is not None else torch.inf)
        fits &= (norms > 0).sum(1) <= int(one.frames if one.frames is not None else T)
        best.append(float(gains[fits].max()))
    return torch.tensor(best, dtype=torch.float64)


@pytest.mark.parametrize("mode", MODES)
def test_only_frames_of_the_clip_within_reach(mode):
    model, clips = TinyVideoNet(4).double().eval(), random_clips(6, (7, 16, 16))
    labels = model(clips).argmax(1)
    result = frame_shuffle(model, clips, labels, ANY, torch.arange(6), mode=mode, displacement=2, queries=40)
    allowed = orders(mode, 7, 2)
    found = shown(clips, result)
    assert all(order in allowed for order in found)
    assert any(order != list(range(7)) for order in found)


@pytest.mark.parametrize("mode", MODES)
def test_a_linear_model_is_shown_the_best_order(mode):
    model, clips = LinearVideo(), random_clips()
    labels = torch.zeros(B, dtype=torch.long)
    result = frame_shuffle(model, clips, labels, ANY, torch.arange(B), mode=mode, displacement=2, queries=2)
    gain = model(result)[:, 1] - model(clips)[:, 1]
    torch.testing.assert_close(gain, brute_force(clips, model.difference, ANY, mode, 2), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "budget",
    [
        Budget("linf", frame=1, frames=4),
        Budget("linf", frame=1, frames=torch.tensor([1, 2, 3, 5, 8])),
        Budget("l2", clip=10.5),
        Budget("l2", frame=5.5, clip=9.5),
        Budget("l2", clip=torch.linspace(8, 14, B, dtype=torch.float64), frames=5),
        Budget("linf", frame=0.985),
    ],
    ids=lambda budget: budget.describe(),
)
def test_under_constraints_a_linear_model_loses_nearly_the_optimum(mode, budget):
    model, clips = LinearVideo(), random_clips()
    labels = torch.zeros(B, dtype=torch.long)
    result = frame_shuffle(model, clips, labels, budget, torch.arange(B), mode=mode, displacement=2, queries=40)
    assert bool((budget.size(result - clips) <= 1).all())
    gain = model(result)[:, 1] - model(clips)[:, 1]
    best = brute_force(clips, model.difference, budget, mode, 2)
    factor = 0.5 if mode == "shuffle" else 0.9  # short cycles are a knapsack that prices and exchanges need not solve
    assert bool((gain >= factor * best - 1e-9).all()), (gain / best).tolist()
    assert float(gain.sum()) >= 0.9 * float(best.sum())
    assert bool((gain <= best + 1e-9).all())


def test_a_frame_moves_only_where_its_distance_fits():
    """Two frames that are alike may trade places within a small radius, the others may not."""
    clips = torch.full((1, 3, 4, 8, 8), 0.5)
    for place, value in enumerate((0.0, 0.5, 0.51, 1.0)):
        clips[:, :, place] = value

    class Later(torch.nn.Module):
        def forward(self, x):
            means = x.mean((1, 3, 4))
            return torch.stack([means[:, 3] * 0 + 9, (means * torch.tensor([3.0, 2.0, 1.0, 0.0])).sum(1)], 1)

    labels, seeds = torch.tensor([0]), torch.tensor([0])
    result = frame_shuffle(Later(), clips, labels, Budget("linf", frame=0.05), seeds, displacement=3)
    assert shown(clips, result) == [[0, 2, 1, 3]]
    alone = frame_shuffle(Later(), clips, labels, Budget("linf", frame=0.05, frames=1), seeds, displacement=3)
    assert torch.equal(alone, clips)


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: budget.describe())
def test_what_no_order_fits_stays_as_it_is(budget):
    model, clips = TinyVideoNet(4).eval(), random_clips(3, (4, 16, 16)).float()
    result = frame_shuffle(model, clips, model(clips).argmax(1), budget, torch.arange(3))
    assert torch.equal(result, clips)


def test_queries_are_counted_and_broken_clips_left_alone():
    model, calls = TinyVideoNet(4).double().eval(), []
    clips = random_clips(4, (6, 16, 16)) * 0.01 + 0.5
    with torch.no_grad():
        labels = model(clips).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    frame_shuffle(model, clips, labels, ANY, torch.arange(4), queries=12, gradients=3)
    assert calls[0] == 4
    assert set(calls[1:]) == {1}
    assert len(calls) <= 12
    model.surrogate = True
    calls.clear()
    frame_shuffle(model, clips, labels, ANY, torch.arange(4), queries=12, gradients=3)
    assert calls == [4] * 12


def test_a_single_frame_and_no_displacement_leave_nothing_to_ask():
    model, calls = TinyVideoNet(4).eval(), []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    for shape, displacement in (((1, 16, 16), 2), ((4, 16, 16), 0)):
        clips = random_clips(2, shape).float()
        with torch.no_grad():
            labels = model(clips).argmax(1)
        calls.clear()
        result = frame_shuffle(model, clips, labels, ANY, torch.arange(2), displacement=displacement)
        assert torch.equal(result, clips)
        assert calls == [2]


def test_more_queries_never_weaken():
    model, clips = TinyVideoNet(3).eval(), random_clips(6, (8, 16, 16)).float() * 0.1 + 0.4
    labels, seeds = model(clips).argmax(1), torch.arange(6)
    few, many = (margin(model(frame_shuffle(model, clips, labels, ANY, seeds, queries=q)), labels) for q in (3, 40))
    assert bool((many >= few).all())


def test_contract():
    budgets = [ANY, Budget("linf", 1, frames=3), Budget("l2", clip=20), BUDGETS[0]]
    for mode in MODES:
        attack = rv.load_attack(f"frame-shuffle:queries=5,gradients=2,mode={mode}")
        check_attack(attack, budgets, classes=(2, 10), shapes=((5, 12, 16), (1, 12, 16)))


@pytest.mark.parametrize("settings", [{"mode": "shufle"}, {"displacement": -1}, {"queries": 0}])
def test_settings_that_attack_nothing_are_refused(settings):
    clips = random_clips(1, (4, 16, 16))
    with pytest.raises(CardError, match=r"There are|give"):
        frame_shuffle(TinyVideoNet(4), clips, torch.tensor([0]), ANY, torch.arange(1), **settings)


def motion10(model, count):
    data = rv.load_data("motion10")
    samples = [data.sample(index, model.card.clip) for index in range(count)]
    clips = torch.stack([sample.frames.permute(3, 0, 1, 2) for sample in samples]).float() / 255
    return clips, torch.tensor([sample.label for sample in samples])


def test_the_mean_of_frames_is_unharmed_and_a_3d_cnn_is_not():
    pool, conv = rv.load_model("frame_pool"), rv.load_model("conv3d")
    assert pool.card.options.get("pooling", "temporal_average") == "temporal_average"
    clips, labels = motion10(conv, 100)
    seeds = torch.arange(100)
    with frozen(pool), torch.no_grad():
        before = pool(clips)
        result = frame_shuffle(pool, clips, before.argmax(1), ANY, seeds, queries=3, gradients=2)
        after = pool(result)
    assert not torch.equal(result, clips)
    assert torch.equal(after.argmax(1), before.argmax(1))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    with frozen(conv), torch.no_grad():
        clips, labels = clips[:40], labels[:40]
        clean = conv(clips).argmax(1) == labels
        robust = conv(frame_shuffle(conv, clips, labels, ANY, seeds[:40], queries=10)).argmax(1) == labels
    assert clean.float().mean() > 0.9
    assert robust.float().mean() < 0.4
