"""Attacks on few frames: they find the frames that matter, and leave the others exactly as they are."""

import pytest
import torch
from linear import BUDGETS, B, H, LinearVideo, T, W, worst_case

from robustvid.attacks.fgsm import fgsm
from robustvid.attacks.pgd import pgd
from robustvid.attacks.sparse import l21, one_frame, project_l21, sparse_frames
from robustvid.budget import Budget, frames_touched
from robustvid.errors import CardError
from robustvid.losses import margin
from robustvid.testing import TinyVideoNet


class Decisive(torch.nn.Module):
    """Reads two frames of eight strongly, and another two just enough to look salient at the clean clip."""

    def __init__(self, strong=(2, 5)):
        super().__init__()
        weight = torch.randn(3, 8, 6, 10, generator=torch.Generator().manual_seed(0)) * 0.01
        weight[:, list(strong)] *= 20
        self.weight = weight

    def forward(self, clips):
        score = ((clips - 0.5) * self.weight).sum((1, 2, 3, 4)) - 1.0
        return torch.stack([torch.zeros_like(score), score], 1)


def grey(count, dtype=torch.float32):
    return torch.full((count, 3, T, H, W), 0.5, dtype=dtype)


@pytest.mark.parametrize("name", BUDGETS)
def test_linear_classifier_reaches_the_closed_form(name):
    model, budget = LinearVideo(), BUDGETS[name]
    clips, labels = grey(B, torch.float64), torch.zeros(B, dtype=torch.long)
    result = sparse_frames(model, clips, labels, budget, torch.arange(B))
    gain = model(result)[:, 1] - model(clips)[:, 1]
    torch.testing.assert_close(gain, worst_case(budget, model.difference), rtol=1e-2, atol=0)
    assert bool((budget.size(result - clips) <= 1).all())


@pytest.mark.parametrize("budget", [Budget("linf", "2/255"), Budget("l2", frame=0.1), Budget("l2", clip=0.2)])
def test_one_frame_finds_the_best_frame(budget):
    model = LinearVideo()
    clips, labels = grey(1, torch.float64), torch.zeros(1, dtype=torch.long)
    result = one_frame(model, clips, labels, budget, torch.arange(1))
    best = fgsm(model, clips, labels, Budget(budget.norm, budget.frame, budget.clip, 1), torch.arange(1))
    assert frames_touched(result - clips).tolist() == [1]
    torch.testing.assert_close(model(result)[:, 1], model(best)[:, 1], rtol=1e-2, atol=0)


@pytest.mark.parametrize("k", [1, 2, 4, 8, 9])
def test_no_more_than_k_frames_change(k):
    model, clips = TinyVideoNet(4).eval(), torch.rand(3, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    labels, budget = model(clips).argmax(1), Budget("linf", "1/255", frames=k)
    for attack in (sparse_frames, one_frame, l21):
        result = attack(model, clips, labels, budget, torch.arange(3), steps=3)
        assert bool((frames_touched(result - clips) <= k).all())


def test_saliency_finds_the_planted_frames_and_chance_does_not():
    model, clips = Decisive(), grey(24)
    labels, budget = torch.zeros(24, dtype=torch.long), Budget("linf", "4/255", frames=2)
    settings = {"rounds": 1, "steps": 5}
    found, drawn = (
        sparse_frames(model, clips, labels, budget, torch.arange(24), ranking=ranking, **settings)
        for ranking in ("saliency", "random")
    )
    touched = (found - clips).abs().amax((1, 3, 4)) > 0
    assert touched.nonzero()[:, 1].unique().tolist() == [2, 5]
    assert bool((margin(model(found), labels) >= margin(model(drawn), labels) - 1e-5).all())
    assert float(margin(model(drawn), labels).mean()) < float(margin(model(found), labels).mean()) - 0.1


def test_frames_are_exchanged_while_the_clip_stands():
    """A model of two frames of which the gradient at the clean clip shows the lesser one."""

    class Hidden(torch.nn.Module):
        def forward(self, clips):
            shown = clips[:, :, 0].mean((1, 2, 3)) - 0.5
            hidden = clips[:, :, 1].mean((1, 2, 3)) - 0.5
            score = shown + 0.5 * hidden + 4000 * hidden.relu() ** 2 - 0.5
            return torch.stack([torch.zeros_like(score), score], 1)

    model, clips = Hidden(), torch.full((1, 3, 2, 4, 4), 0.5)
    labels, budget, seeds = torch.zeros(1, dtype=torch.long), Budget("linf", "10/255", frames=1), torch.arange(1)
    assert bool((margin(model(pgd(model, clips, labels, budget, seeds)), labels) < 0).all())
    result = sparse_frames(model, clips, labels, budget, seeds, rounds=2)
    assert bool((margin(model(result), labels) > 0).all())
    assert (result - clips).abs().amax((1, 3, 4)).gt(0).tolist() == [[False, True]]


def test_a_broken_clip_costs_one_forward():
    model, calls = TinyVideoNet(4).eval(), []
    clips = torch.rand(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = (model(clips).argmax(1) + 1) % 4
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    for attack in (one_frame, l21):
        calls.clear()
        result = attack(model, clips, labels, Budget("linf", "8/255"), torch.arange(2))
        assert calls == [2]
        assert torch.equal(result, clips)


def test_l21_touches_fewer_frames_than_pgd_and_less_in_sum():
    model, clips = Decisive(), grey(4)
    labels, budget, seeds = torch.zeros(4, dtype=torch.long), Budget("linf", "12/255"), torch.arange(4)

    def total(result):
        return torch.linalg.vector_norm(result - clips, dim=(1, 3, 4)).sum(1)

    sparse, dense = (attack(model, clips, labels, budget, seeds) for attack in (l21, pgd))
    assert bool((margin(model(sparse), labels) > 0).all())
    assert bool((margin(model(dense), labels) > 0).all())
    assert bool((frames_touched(sparse - clips) <= 3).all())
    assert bool((frames_touched(dense - clips) == 8).all())
    assert bool((total(sparse) < 0.5 * total(dense)).all())


def test_projection_onto_the_l21_ball():
    generator = torch.Generator().manual_seed(3)
    delta = torch.randn(20, 3, 6, 4, 5, generator=generator, dtype=torch.float64)
    delta[:, :, 2] *= 5
    radius = torch.linspace(0, 150, 20, dtype=torch.float64)

    def size(x):
        return torch.linalg.vector_norm(x, dim=(1, 3, 4)).sum(1)

    projected = project_l21(delta, radius)
    assert bool((size(projected) <= radius + 1e-9).all())
    torch.testing.assert_close(project_l21(projected, radius), projected)
    inside = size(delta) <= radius
    assert bool(inside.any())
    assert bool((~inside).any())
    assert torch.equal(projected[inside], delta[inside])
    assert bool((frames_touched(projected[1:3]) < 6).all())  # whole frames become exactly zero
    for _ in range(50):  # no point of the ball is nearer: the variational inequality
        other = torch.randn(delta.shape, generator=generator, dtype=torch.float64)
        other = other * (radius / size(other))[:, None, None, None, None] * torch.rand(1, generator=generator)
        assert bool((((delta - projected) * (other - projected)).sum((1, 2, 3, 4)) <= 1e-8).all())


@pytest.mark.parametrize("settings", [{"rounds": 0}, {"ranking": "luck"}, {"steps": 0}])
def test_settings_that_mean_nothing_are_refused(settings):
    model, clips = TinyVideoNet(4).eval(), torch.rand(1, 3, 4, 16, 16)
    with pytest.raises(CardError, match="give"):
        sparse_frames(model, clips, torch.tensor([0]), Budget("linf", "8/255", frames=1), torch.arange(1), **settings)
