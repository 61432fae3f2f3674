"""A zero flow changes nothing, no vector is too long, the gradient is the derivative, and warps are seen by a CNN."""

import math

import pytest
import torch
import torch.nn.functional as F

import robustvid as rv
from robustvid.attacks import flow_warp as module
from robustvid.attacks.flow_warp import flow_warp, total_variation, warp
from robustvid.attacks.goal import Goal
from robustvid.budget import Budget
from robustvid.contracts import frozen
from robustvid.errors import CardError
from robustvid.testing import BUDGETS, TinyVideoNet, check_attack

ANY = Budget("linf", frame=1)


def random_clips(count, shape, dtype=torch.float64):
    return torch.rand(count, 3, *shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


def random_flow(count, shape, scale):
    return scale * torch.randn(count, 2, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def scene(model, clips, budget=ANY, displacement=1.0):
    return module._Scene(clips, Goal(model(clips).argmax(1), "margin"), budget, None, displacement)


@pytest.mark.parametrize("shape", [(4, 9, 14), (1, 1, 5)])
def test_no_flow_is_the_identity(shape):
    clips = random_clips(2, shape, torch.float32)
    assert torch.equal(warp(clips, torch.zeros(2, 2, *shape)), clips)


@pytest.mark.parametrize("scale", [0.3, 3.0, 50.0])
def test_warp_samples_like_grid_sample(scale):
    shape = (3, 9, 14)
    clips, flow = random_clips(2, shape), random_flow(2, shape, scale)
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(14), indexing="ij")
    places = torch.stack([2 * (columns + flow[:, 1]) / 13 - 1, 2 * (rows + flow[:, 0]) / 8 - 1], -1).flatten(0, 1)
    frames = clips.transpose(1, 2).flatten(0, 1)
    sampled = F.grid_sample(frames, places, padding_mode="border", align_corners=True)
    torch.testing.assert_close(warp(clips, flow), sampled.view(2, 3, 3, 9, 14).transpose(1, 2), rtol=0, atol=1e-12)


def test_whole_pixels_shift_the_clip():
    clips, flow = random_clips(1, (2, 6, 7)), torch.zeros(1, 2, 2, 6, 7, dtype=torch.float64)
    flow[:, 1] = 2
    assert torch.equal(warp(clips, flow)[..., :5], clips[..., 2:])


def test_the_gradient_is_the_derivative():
    model, clips = TinyVideoNet(4).double().eval(), random_clips(2, (3, 12, 16))
    subject = scene(model, clips, displacement=1.5)
    field = 0.3 + 0.2 * random_flow(2, (3, 3, 4), 1.0).clamp(-1, 1)
    grad, _, _ = module._gradient(model, subject, field, 0.7)

    @torch.no_grad()
    def objective(point):
        gain = subject.goal.value(model(subject.show(point)))
        return float((gain - 0.7 * total_variation(point)).sum())

    for number in range(5):
        along = torch.randn(field.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        slope = (objective(field + 1e-6 * along) - objective(field - 1e-6 * along)) / 2e-6
        assert slope == pytest.approx(float((grad * along).sum()), rel=1e-5)


def test_the_gradient_passes_a_projection_that_holds_every_pixel():
    model, clips = TinyVideoNet(4).double().eval(), random_clips(2, (3, 12, 16))
    field = random_flow(2, (3, 3, 4), 0.3)
    grad, shown, _ = module._gradient(model, scene(model, clips, Budget("linf", 1e-9)), field, 0.0)
    assert float((shown - clips).abs().max()) <= 2e-9
    assert float(grad.abs().max()) > 0


@pytest.mark.parametrize("rule", ["adam", "sign"])
@pytest.mark.parametrize("cell", [1, 4])
def test_no_vector_is_longer_than_the_displacement(rule, cell, monkeypatch):
    flows = []
    monkeypatch.setattr(module, "warp", lambda clips, flow: flows.append(flow.detach()) or warp(clips, flow))
    model, clips = TinyVideoNet(4).double().eval(), random_clips(3, (3, 10, 16))
    labels = model(clips).argmax(1)
    model.surrogate = True
    settings = {"displacement": 0.7, "cell": cell, "rule": rule, "steps": 8, "smoothness": 0.0}
    flow_warp(model, clips, labels, ANY, torch.arange(3), **settings)
    longest = [float(flow.norm(dim=1).max()) for flow in flows]
    assert flows[0].shape == (3, 2, 3, 10, 16)
    assert max(longest) <= 0.7 + 1e-9
    assert max(longest) > 0.6
    assert longest[0] < 0.1 * 0.7


def test_smoothness_lowers_the_variation(monkeypatch):
    model, clips = TinyVideoNet(4).double().eval(), random_clips(4, (4, 16, 16))
    labels = model(clips).argmax(1)
    model.surrogate = True
    variations = []
    for smoothness in (0.0, 3.0, 300.0):
        flows = []
        monkeypatch.setattr(module, "warp", lambda c, flow, kept=flows: kept.append(flow.detach()) or warp(c, flow))
        flow_warp(model, clips, labels, ANY, torch.arange(4), cell=2, steps=15, smoothness=smoothness)
        variations.append(float(total_variation(flows[-1]).mean()))
    assert variations[0] > 1.1 * variations[1]
    assert variations[1] > 2 * variations[2]


def test_total_variation_counts_time_and_space():
    field = torch.zeros(1, 2, 2, 3, 4, dtype=torch.float64)
    assert float(total_variation(field + 5)) == 0
    field[:, 0, 1] = 2.0  # one step in time at each of the 12 places, of 24
    assert float(total_variation(field)) == pytest.approx(1.0, rel=1e-2)
    field[:, 1, :, 1:] = 2.0  # and one in space between rows 0 and 1: alone in frame 1, with the other in frame 0
    assert float(total_variation(field)) == pytest.approx((2 * 8 + math.sqrt(8) * 4 + 2 * 4) / 24, rel=1e-2)


def test_k_frames_warp_and_the_others_stay():
    model, clips = TinyVideoNet(4).eval(), random_clips(3, (6, 16, 16), torch.float32)
    labels = model(clips).argmax(1)
    result = flow_warp(model, clips, labels, Budget("linf", frame=1, frames=2), torch.arange(3), steps=3)
    touched = (result - clips).abs().amax((1, 3, 4)).gt(0).sum(1)
    assert bool((touched <= 2).all())
    assert bool((touched > 0).any())


def test_broken_clips_are_left_alone():
    model, calls = TinyVideoNet(4).eval(), []
    clips = random_clips(4, (4, 16, 16), torch.float32) * 0.001 + 0.5
    with torch.no_grad():
        labels = model(clips).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    flow_warp(model, clips, labels, ANY, torch.arange(4), steps=5)
    assert calls == [4, 1, 1, 1, 1, 1]


def test_contract():
    attack = rv.load_attack("flow-warp:steps=3")
    check_attack(attack, [ANY, *BUDGETS], classes=(10,), shapes=((5, 12, 20), (1, 16, 16)))
    check_attack(rv.load_attack("flow-warp:steps=3,rule=sign,cell=1"), [ANY], classes=(3,), shapes=((4, 12, 20),))


@pytest.mark.parametrize(
    "settings",
    [{"displacement": 0.0}, {"cell": 0}, {"steps": 0}, {"step_size": math.nan}, {"smoothness": -1.0}, {"rule": "sgd"}],
)
def test_settings_that_attack_nothing_are_refused(settings):
    with pytest.raises(CardError, match=r"give|There are"):
        flow_warp(TinyVideoNet(4), random_clips(1, (2, 8, 8)), torch.tensor([0]), ANY, torch.arange(1), **settings)


def test_a_3d_cnn_is_hurt():
    model, data = rv.load_model("conv3d"), rv.load_data("motion10")
    samples = [data.sample(index, model.card.clip) for index in range(20)]
    clips = torch.stack([sample.frames.permute(3, 0, 1, 2) for sample in samples]).float() / 255
    labels = torch.tensor([sample.label for sample in samples])
    with frozen(model), torch.no_grad():
        assert bool((model(clips).argmax(1) == labels).all())
        result = flow_warp(model, clips, labels, ANY, torch.arange(20), steps=15)
        small = flow_warp(model, clips, labels, Budget("linf", "4/255"), torch.arange(20), steps=4)
        robust = (model(result).argmax(1) == labels).float().mean()
    assert robust < 0.4
    assert bool((Budget("linf", "4/255").size(small - clips) <= 1).all())
