import pytest
import torch

from robustvid.contracts import ClipSpec, ModelCard, frozen
from robustvid.errors import ClipError, ModelError, UnknownNameError
from robustvid.models.classifier import VideoClassifier, new_classifier, weights_digest
from robustvid.models.conv3d import build as build_conv3d

VARIANTS = [
    ("conv3d", {}),
    ("conv3d", {"widths": [4, 5, 6, 7]}),
    ("frame_pool", {}),
    ("frame_pool", {"pooling": "temporal_max"}),
    ("frame_pool", {"pooling": "spatiotemporal_max", "pooling_options": {"window": [2, 2, 2], "stride": [1, 2, 2]}}),
    ("frame_pool", {"pooling": "spatiotemporal_average", "pooling_options": {"window": [4, 2, 2]}}),
    ("frame_rnn", {}),
    ("frame_rnn", {"cell": "lstm", "hidden": 8}),
]


def make(arch, options=None, **fields):
    torch.manual_seed(0)
    card = ModelCard("test", arch, ("a", "b", "c"), ClipSpec(8, 2, (24, 24)), options=options or {}, **fields)
    return new_classifier(card).eval()


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join(map(str, (variant[0], *variant[1].values()))))
def model(request):
    return make(*request.param)


@pytest.mark.parametrize("size", [(1, 24, 24), (8, 17, 31), (16, 32, 20), (3, 1, 1)])
def test_any_size_goes_in(model, size):
    logits = model(torch.rand(2, 3, *size))
    assert logits.shape == (2, 3)
    assert torch.isfinite(logits).all()


def test_the_gradient_reaches_every_frame(model):
    clips = torch.rand(2, 3, 8, 24, 24, requires_grad=True)
    with frozen(model):
        (grad,) = torch.autograd.grad(model(clips).square().sum(), clips)
    assert torch.isfinite(grad).all()
    assert (grad.abs().amax((1, 3, 4)) > 0).all()


def test_evaluation_repeats_and_leaves_clips_alone(model):
    clips = torch.rand(2, 3, 8, 24, 24)
    before = clips.clone()
    assert torch.equal(model(clips), model(clips))
    assert torch.equal(clips, before)


def test_batch_mates_do_not_matter(model):
    clips = torch.rand(4, 3, 8, 24, 24)
    together = model(clips)
    alone = torch.cat([model(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["temporal_max", "temporal_average"])
def test_temporal_pooling_is_blind_to_order(pooling):
    model, clips = make("frame_pool", {"pooling": pooling}), torch.rand(2, 3, 8, 24, 24)
    torch.testing.assert_close(model(clips.flip(2)), model(clips))


@pytest.mark.parametrize("arch", ["conv3d", "frame_rnn"])
def test_the_others_see_the_order(arch):
    model, clips = make(arch), torch.rand(2, 3, 8, 24, 24)
    assert not torch.allclose(model(clips.flip(2)), model(clips), atol=1e-6, rtol=0)


def test_normalisation_is_inside():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    clips = torch.rand(2, 3, 8, 24, 24)
    by_hand = torch.stack([(clips[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(make("conv3d", mean=mean, std=std)(clips), make("conv3d")(by_hand))


def test_three_frames_are_not_taken_for_three_channels():
    mean = (0.1, 0.2, 0.3)
    model = VideoClassifier(torch.nn.Identity(), ModelCard("x", "x", ("a", "b"), ClipSpec(3, 1, (2, 2)), mean=mean))
    assert torch.equal(model(torch.zeros(1, 3, 3, 2, 2))[0, :, :, 0, 0], -torch.tensor(mean)[:, None].expand(3, 3))


@pytest.mark.parametrize("shape", [(2, 8, 3, 24, 24), (3, 8, 24, 24), (2, 8, 24, 24, 3)])
def test_other_layouts_are_refused(shape):
    with pytest.raises(ClipError, match=r"wants \(B, 3, T, H, W\)"):
        make("conv3d")(torch.rand(shape))


def test_sizes():
    parameters = {
        name: sum(p.numel() for p in make(name).parameters()) for name in ("conv3d", "frame_pool", "frame_rnn")
    }
    assert parameters["conv3d"] == pytest.approx(0.23e6, rel=0.05)
    assert max(parameters.values()) < 0.25e6


def test_the_recurrent_network_leaves_the_cudnn_switches_alone():
    before = (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    make("frame_rnn")(torch.rand(1, 3, 2, 16, 16))
    after = (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    assert after == before


@pytest.mark.parametrize(
    ("training", "grad", "enabled"), [(False, True, False), (False, False, True), (True, True, True)]
)
def test_cudnn_is_off_where_it_could_not_go_backward(monkeypatch, training, grad, enabled):
    model, seen = make("frame_rnn").train(training), []
    read = model.network.rnn.forward
    monkeypatch.setattr(
        model.network.rnn, "forward", lambda features: seen.append(torch.backends.cudnn.enabled) or read(features)
    )
    with torch.set_grad_enabled(grad):
        model(torch.rand(2, 3, 2, 32, 32))
    assert seen == [enabled]


def test_unknown_choices_are_named():
    with pytest.raises(UnknownNameError, match=r"no recurrent cell named 'gro'\. Did you mean 'gru'"):
        make("frame_rnn", {"cell": "gro"})
    with pytest.raises(UnknownNameError, match="no pooling named 'mean'"):
        make("frame_pool", {"pooling": "mean"})
    with pytest.raises(UnknownNameError, match=r"no architecture named 'conv2d'\. Did you mean 'conv3d'"):
        make("conv2d")
    with pytest.raises(ModelError, match=r"conv3d: got an unexpected keyword argument 'width'; its signature is"):
        make("conv3d", {"width": 4})


def test_the_digest_follows_every_weight():
    model = make("conv3d")
    digest = weights_digest(model)
    assert len(digest) == 64
    assert weights_digest(make("conv3d")) == digest
    assert weights_digest(make("conv3d", mean=(0.5, 0.5, 0.5))) == digest
    batch_norm = model.network.features[0][1]
    batch_norm.num_batches_tracked += 1
    assert weights_digest(model) != digest
    batch_norm.num_batches_tracked -= 1
    with torch.no_grad():
        model.network.head.bias[0] = model.network.head.bias[0].nextafter(torch.tensor(9.0))
    assert weights_digest(model) != digest


def test_the_digest_knows_dtypes_and_memory_layouts():
    model = build_conv3d(3)
    digest = weights_digest(model)
    assert weights_digest(model.to(memory_format=torch.channels_last_3d)) == digest
    assert weights_digest(model.to(torch.bfloat16)) != digest
