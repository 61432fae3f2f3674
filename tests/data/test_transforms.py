import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustvid.data.transforms import from_clips, resize_frames, to_clips
from robustvid.errors import ClipError


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).byte()


def test_every_8_bit_value_survives_the_round_trip():
    frames = torch.arange(256).byte().reshape(1, 1, 16, 16, 1).expand(1, 2, 16, 16, 3)
    assert torch.equal(from_clips(to_clips(list(frames))), frames)


def test_clips_are_what_the_contract_says():
    videos = [noise(4, 6, 8, 3, seed=seed) for seed in range(2)]
    clips = to_clips(videos)
    assert clips.shape == (2, 3, 4, 6, 8)
    assert clips.dtype == torch.float32
    assert clips.is_contiguous()
    assert clips[1, 2, 3, 4, 5] == videos[1][3, 4, 5, 2] / 255
    assert torch.equal(to_clips(torch.stack(videos)), clips)


def test_halves_are_rounded_up():
    levels = torch.tensor([0.5, 1.49, 1.5, 254.5]) / 255
    clips = levels.expand(1, 3, 1, 1, 4).double()
    assert from_clips(clips)[0, 0, 0, :, 0].tolist() == [1, 1, 2, 255]


@settings(deadline=None)
@given(*[st.integers(1, 40)] * 4)
def test_any_size_becomes_any_size(height, width, new_height, new_width):
    resized = resize_frames(noise(2, height, width, 3), (new_height, new_width))
    assert resized.shape == (2, new_height, new_width, 3)
    assert resized.dtype == torch.uint8


def test_the_right_size_is_left_alone():
    frames = noise(3, 20, 30, 3)
    assert torch.equal(resize_frames(frames, (20, 30)), frames)


def test_frames_with_the_right_short_side_are_only_cropped():
    frames = noise(3, 20, 31, 3)
    assert torch.equal(resize_frames(frames, (20, 20)), frames[:, :, 5:25])


def test_proportions_are_kept():
    frames = torch.zeros(1, 100, 200, 3, dtype=torch.uint8)
    frames[:, 25:75, 75:125] = 255  # a square in the centre
    rows, columns = (resize_frames(frames, (40, 40))[0, ..., 0] > 127).nonzero().T
    assert (rows.max() - rows.min(), columns.max() - columns.min()) == (19, 19)
    assert (rows.min(), columns.min()) == (10, 10)


def test_shrinking_averages_instead_of_skipping():
    stripes = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    assert np.ptp(resize_frames(stripes, (16, 16))[0, 4:-4, 4:-4].numpy()) <= 2


def test_constant_frames_stay_constant():
    frames = torch.full((1, 37, 53, 3), 200, dtype=torch.uint8)
    assert torch.equal(resize_frames(frames, (90, 21)), torch.full((1, 90, 21, 3), 200, dtype=torch.uint8))


@pytest.mark.parametrize(
    "frames", [noise(2, 8, 8, 3).float(), noise(8, 8, 3), noise(2, 3, 8, 8), noise(2, 0, 8, 3), noise(0, 8, 8, 3)]
)
def test_what_is_not_frames_is_refused(frames):
    with pytest.raises(ClipError, match="wanted uint8"):
        resize_frames(frames, (4, 4))
    with pytest.raises(ClipError, match="wanted uint8"):
        to_clips([frames])


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ClipError, match="size is"):
        resize_frames(noise(2, 8, 8, 3), (0, 4))
    with pytest.raises(ClipError, match="one shape"):
        to_clips([noise(2, 8, 8, 3), noise(3, 8, 8, 3)])
    with pytest.raises(ClipError, match="one shape"):
        to_clips([])
    with pytest.raises(ClipError, match="divide by 255"):
        from_clips(torch.full((1, 3, 2, 4, 4), 200.0))
