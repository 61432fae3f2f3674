from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustvid.contracts import ClipSpec
from robustvid.data.sampling import clip_indices, random_clip_indices
from robustvid.errors import DataError

lengths = st.integers(1, 400)
clips = st.builds(ClipSpec, frames=st.integers(1, 64), stride=st.integers(1, 16), size=st.just((8, 8)))


def span(clip):
    return (clip.frames - 1) * clip.stride + 1


@given(lengths, clips)
def test_centre_clip_is_a_window_with_equal_margins(n, clip):
    indices = clip_indices(n, clip)
    assert len(indices) == clip.frames
    assert all(0 <= index < n for index in indices)
    if span(clip) <= n:
        before, after = indices[0], n - 1 - indices[-1]
        assert after - before in (0, 1)
        assert indices == list(range(indices[0], indices[-1] + 1, clip.stride))


@given(lengths, clips, st.integers(0, 2**32))
def test_random_clip_is_a_window_that_loops_only_when_it_must(n, clip, seed):
    indices = random_clip_indices(n, clip, torch.Generator().manual_seed(seed))
    assert len(indices) == clip.frames
    assert all(0 <= index < n for index in indices)
    steps = {(b - a) % n for a, b in pairwise(indices)}
    assert steps <= {clip.stride % n}
    if span(clip) <= n:
        assert indices == sorted(indices)


def test_a_short_video_is_played_in_a_loop_from_its_start():
    assert clip_indices(3, ClipSpec(8, 1, (8, 8))) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert clip_indices(5, ClipSpec(4, 2, (8, 8))) == [0, 2, 4, 1]
    assert clip_indices(1, ClipSpec(4, 3, (8, 8))) == [0, 0, 0, 0]


@pytest.mark.parametrize("n", [6, 20])
def test_random_clips_reach_every_start(n):
    clip, generator = ClipSpec(4, 2, (8, 8)), torch.Generator().manual_seed(0)
    starts = {random_clip_indices(n, clip, generator)[0] for _ in range(500)}
    assert starts == set(range(n - 6 if n >= 7 else n))


def test_random_clips_follow_the_generator():
    clip = ClipSpec(4, 2, (8, 8))
    first, second = (
        [random_clip_indices(99, clip, generator) for _ in range(5)]
        for generator in (torch.Generator().manual_seed(7), torch.Generator().manual_seed(7))
    )
    assert first == second


@pytest.mark.parametrize(
    ("n", "clip"), [(0, ClipSpec(4, 1, (8, 8))), (9, ClipSpec(0, 1, (8, 8))), (9, ClipSpec(4, 0, (8, 8)))]
)
def test_impossible_clips_are_refused(n, clip):
    with pytest.raises(DataError, match="at least"):
        clip_indices(n, clip)
    with pytest.raises(DataError, match="at least"):
        random_clip_indices(n, clip, torch.Generator())
