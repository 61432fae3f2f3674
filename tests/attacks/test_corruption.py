"""Corruptions are what they are called, reproducible, and worse when more severe."""

import pytest
import torch

import robustvid as rv
from robustvid.attacks.corruption import KINDS, corruption
from robustvid.errors import CardError
from robustvid.testing import TinyVideoNet

ANY = rv.Budget("linf", frame=1)
LABELS = torch.zeros(2, dtype=torch.int64)


def clips(shape=(2, 3, 8, 64, 80)):
    """Return smooth clips with motion."""
    _, c, t, h, w = shape
    x = torch.linspace(0, 6, w)[None] + torch.linspace(0, 4, h)[:, None]
    frames = torch.stack([0.5 + 0.35 * torch.sin(x + 0.4 * place) for place in range(t)])
    return (frames[None, None] * torch.tensor([1.0, 0.8, 0.6])[:c, None, None, None]).expand(shape).contiguous()


def corrupt(kind, severity=3, given=None, budget=ANY, seeds=(0, 1)):
    given = clips() if given is None else given
    return corruption(None, given, LABELS, budget, torch.tensor(seeds), kind=kind, severity=severity)


@pytest.mark.parametrize("kind", KINDS)
def test_more_severe_is_further_away(kind):
    distances = [float((corrupt(kind, severity) - clips()).square().mean()) for severity in range(1, 6)]
    assert distances == sorted(distances)
    assert 0 < distances[0] < distances[-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 3, 1, 16, 16), (2, 3, 5, 48, 64)])
def test_shape_range_and_company(kind, shape):
    given = clips(shape)
    result = corrupt(kind, given=given)
    assert result.shape == given.shape
    assert result.dtype == given.dtype
    assert bool(((result >= 0) & (result <= 1)).all())
    alone = corruption(None, given[1:], LABELS[1:], ANY, torch.tensor([1]), kind=kind, severity=3)
    assert torch.equal(alone, result[1:])
    assert torch.equal(corrupt(kind, given=given), result)


def test_noise_has_its_moments():
    grey = torch.full((2, 3, 8, 64, 64), 0.5)
    gaussian = corrupt("gaussian-noise", 1, grey) - grey
    assert float(gaussian.std()) == pytest.approx(0.08, rel=0.02)
    assert float(gaussian.mean()) == pytest.approx(0, abs=0.001)
    shot = corrupt("shot-noise", 1, grey)
    assert float(shot.std()) == pytest.approx((0.5 / 60) ** 0.5, rel=0.03)
    impulse = corrupt("impulse-noise", 5, grey)
    assert float((impulse != grey).float().mean()) == pytest.approx(0.27, rel=0.03)
    assert set(impulse.unique().tolist()) == {0.0, 0.5, 1.0}


def test_brightness_keeps_hue_and_saturation():
    given = torch.tensor([0.4, 0.2, 0.1])[None, :, None, None, None].expand(2, 3, 2, 4, 4)
    assert torch.allclose(corrupt("brightness", 2, given), given * 1.5)
    black = torch.zeros(2, 3, 2, 4, 4)
    assert torch.allclose(corrupt("brightness", 2, black), torch.full_like(black, 0.2))


def test_contrast_keeps_the_mean_of_every_frame():
    given = clips()
    result = corrupt("contrast", 1)
    assert torch.allclose(result.mean((3, 4)), given.mean((3, 4)), atol=1e-5)
    assert torch.allclose(result.std((3, 4)), given.std((3, 4)) / 2, atol=1e-5)


def test_blurs_keep_what_is_flat_in_space_or_time():
    flat = torch.rand(2, 3, 8, 1, 1, generator=torch.Generator().manual_seed(0)).expand(2, 3, 8, 32, 32)
    assert torch.allclose(corrupt("defocus-blur", 5, flat), flat, atol=1e-5)
    still = clips()[:, :, :1].expand(2, 3, 8, 64, 80)
    assert torch.allclose(corrupt("motion-blur", 5, still), still, atol=1e-6)
    assert torch.equal(corrupt("freeze", 5, still), still)


def test_motion_blur_is_the_mean_of_neighbours():
    result = corrupt("motion-blur", 1)
    assert torch.allclose(result[:, :, 3], clips()[:, :, 2:5].mean(2))
    assert torch.allclose(result[:, :, 0], clips()[:, :, :2].mean(2))


@pytest.mark.parametrize(("severity", "shown"), [(1, [0, 0, 2, 2, 4, 4, 6, 6]), (2, [0] * 4 + [4] * 4), (5, [0] * 8)])
def test_freeze_shows_few_frames(severity, shown):
    assert torch.equal(corrupt("freeze", severity), clips()[:, :, shown])


def test_what_leaves_the_budget_stays_as_it_was():
    given = clips()
    result = corrupt("gaussian-noise", 5, budget=rv.Budget("linf", "8/255"))
    assert torch.equal(result, given)


@pytest.mark.parametrize("card", ["corruption:kind=gausian-noise", "corruption:severity=6", "corruption:severity=0"])
def test_mistakes_are_named(card):
    with pytest.raises(CardError, match=r"Did you mean 'gaussian-noise'|severities 1 to 5"):
        rv.load_attack(card)(TinyVideoNet(2), clips(), LABELS, ANY, torch.tensor([0, 1]))
