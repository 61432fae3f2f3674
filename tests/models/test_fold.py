"""Folding keeps the function and the model."""

import pytest
import torch
from torch import nn

import robustvid as rv
from robustvid.models.fold import fold


@pytest.mark.parametrize("name", ["conv3d", "frame_rnn", "frame_pool"])
def test_the_twin_answers_and_slopes_alike_without_batchnorm(name):
    model = rv.load_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    twin = fold(model)
    clips = torch.rand(2, 3, *((model.card.clip.frames, *model.card.clip.size)), requires_grad=True)
    logits, again = model(clips), twin(clips)
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-4)
    slope, slope_again = (torch.autograd.grad(out.logsumexp(1).sum(), clips)[0] for out in (logits, again))
    torch.testing.assert_close(slope_again, slope, rtol=1e-2, atol=1e-6)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in twin.modules())
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Named(nn.Conv3d):
    """A convolution under another name, as torchvision has them."""


class Louder(nn.Conv3d):
    """No plain convolution."""

    def forward(self, clips):
        return 2 * super().forward(clips)


def test_a_convolution_is_known_by_what_it_computes():
    model = nn.ModuleList([nn.Sequential(kind(3, 3, 1), nn.BatchNorm3d(3)) for kind in (Named, Louder)])
    assert [isinstance(block[1], nn.BatchNorm3d) for block in fold(model)] == [False, True]


def test_what_others_use_or_watch_stays_in_two_parts():
    shared = nn.Conv3d(3, 3, 1)
    norms = [nn.BatchNorm3d(3) for _ in range(4)]
    watched, batch_only = nn.Sequential(nn.Conv3d(3, 3, 1), norms[2]), nn.BatchNorm3d(3, track_running_stats=False)
    watched[0].register_forward_hook(lambda *_: None)
    model = nn.ModuleList(
        [
            nn.Sequential(shared, norms[0]),
            nn.Sequential(shared, norms[1]),
            watched,
            nn.Sequential(nn.Conv3d(3, 3, 1), batch_only),
            nn.Sequential(nn.Conv3d(3, 3, 1), norms[3]),
        ]
    )
    kept = [isinstance(block[1], nn.BatchNorm3d) for block in fold(model)]
    assert kept == [True, True, True, True, False]
