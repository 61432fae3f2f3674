"""Views in time and crops in space: which frames, which part of them, and the mean of their logits."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robustvid as rv
from robustvid.data.sampling import clip_indices, crop_corner, random_clip_indices
from robustvid.data.transforms import fit_frames, resize_frames
from robustvid.errors import ModelError
from robustvid.evaluation.checks import check_models
from robustvid.models.classifier import VideoClassifier
from robustvid.testing import TinyVideoNet, check_model

DENSE = rv.ClipSpec(4, 2, (8, 8))
UNIFORM = replace(DENSE, sampling="uniform")


@given(st.integers(1, 300), st.integers(1, 10), st.sampled_from([DENSE, UNIFORM]))
def test_views_are_in_order_inside_the_video(n, views, clip):
    indices = clip_indices(n, replace(clip, views=views))
    assert len(indices) == 4 * views
    assert all(0 <= index < n for index in indices)
    if n >= 7:
        starts = indices[::4]
        assert starts == sorted(starts)


def test_dense_views_reach_from_the_first_frame_to_the_last():
    indices = clip_indices(100, replace(DENSE, views=3))
    assert indices == [0, 2, 4, 6, 46, 48, 50, 52, 93, 95, 97, 99]


def test_uniform_views_take_one_frame_from_every_part():
    assert clip_indices(40, UNIFORM) == [5, 15, 25, 35]
    assert clip_indices(40, replace(UNIFORM, views=2)) == [2, 12, 22, 32, 7, 17, 27, 37]
    assert clip_indices(2, UNIFORM) == [0, 0, 1, 1]


@given(st.integers(4, 300), st.integers(0, 99))
def test_random_uniform_clips_have_one_frame_of_every_part(n, seed):
    indices = random_clip_indices(n, UNIFORM, torch.Generator().manual_seed(seed))
    for part, index in enumerate(indices):
        assert part * n / 4 - 1 < index < (part + 1) * n / 4


@pytest.mark.parametrize(
    ("frame", "corners"), [((10, 20), [(1, 0), (1, 6), (1, 12)]), ((20, 8), [(0, 0), (6, 0), (12, 0)])]
)
def test_three_crops_lie_along_the_longer_side(frame, corners):
    assert [crop_corner(frame, (8, 8), place) for place in (0, 1, 2)] == corners


def test_frames_are_scaled_before_the_crop():
    frames = torch.randint(0, 256, (2, 30, 60, 3), dtype=torch.uint8)
    whole = resize_frames(frames, (16, 32))
    assert torch.equal(resize_frames(frames, (8, 8), short_side=16), whole[:, 4:12, 12:20])
    crops = fit_frames(frames, rv.ClipSpec(2, 1, (16, 16), crops=3))
    assert torch.equal(crops, torch.cat([whole[:, :, :16], whole[:, :, 8:24], whole[:, :, 16:]]))


def tiny(**clip):
    torch.manual_seed(0)
    spec = rv.ClipSpec(4, 1, (16, 16), **clip)
    return VideoClassifier(TinyVideoNet(4), rv.ModelCard("tiny", "tiny", ("a", "b", "c", "d"), spec)).eval()


def test_logits_are_the_mean_over_views_and_crops():
    one, many = tiny(), tiny(views=2, crops=3)
    clips = torch.rand(3, 3, 24, 16, 16)
    apart = torch.stack([one(part) for part in clips.split(4, dim=2)])
    assert torch.allclose(many(clips), apart.mean(0), atol=1e-6)
    check_model(many)


class Views:
    name, split = "views", "test"

    def __init__(self, classes):
        self.classes = classes


def test_models_and_data_that_do_not_name_their_classes_are_taken_at_their_word(caplog):
    check_models(tiny(), Views(("0", "1", "2", "3")), None)
    assert "data views does not name its classes" in caplog.text
    with pytest.raises(ModelError, match="4 and 3 classes"):
        check_models(tiny(), Views(("0", "1", "2")), None)
    with pytest.raises(ModelError, match="class 2 is 'c' for the model and 'd' for the data"):
        check_models(tiny(), Views(("a", "b", "d", "c")), None)
