import numpy as np
import pytest

from robustvid.data import synthetic
from robustvid.data.synthetic import CLASSES, FRAMES, SIZE, SPLITS, poses, render

MIRRORED = [("right", "left"), ("up", "down"), ("spin_cw", "spin_ccw"), ("grow", "shrink")]
MOTIONS = 600


def many_poses(name, n=MOTIONS):
    """Poses ``(n, frames, 4)`` of ``n`` motions of one class."""
    rng = np.random.default_rng([CLASSES.index(name), 99])
    return np.stack([poses(name, rng) for _ in range(n)])


def steps(path):
    """Displacements on the torus from frame to frame, in [-0.5, 0.5)."""
    return (np.diff(path, axis=1) + 0.5) % 1 - 0.5


def test_videos_have_the_documented_shape():
    video = render("train", 0, 0)
    assert video.shape == (FRAMES, SIZE, SIZE, 3)
    assert video.dtype == np.uint8


def test_rendering_is_a_pure_function():
    np.random.seed(0)
    first = render("test", 4, 7, seed=3)
    np.random.seed(1)
    assert np.array_equal(render("test", 4, 7, seed=3), first)


def test_every_argument_makes_another_video():
    videos = [render("train", 2, 5), render("test", 2, 5), render("train", 3, 5), render("train", 2, 6)]
    videos.append(render("train", 2, 5, seed=1))
    for i, video in enumerate(videos):
        assert not any(np.array_equal(video[0], other[0]) for other in videos[:i])


def test_the_pixels_are_those_of_version_1():
    """If this fails, the videos have changed: results are no longer comparable and the folder needs a new name."""
    expected = [[110, 119, 150, 113], [132, 126, 107, 222], [211, 132, 146, 212], [140, 124, 116, 215]]
    assert np.abs(render("test", 0, 0)[0, ::16, ::16, 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", CLASSES)
def test_the_pose_is_uniform_at_every_frame_for_every_class(name):
    """Then a single frame says nothing of the class. Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed once in 1,000."""
    ordered = np.sort(many_poses(name), axis=0)
    ranks = (np.arange(MOTIONS) + 0.5)[:, None, None] / MOTIONS
    assert np.abs(ordered - ranks).max() < 2.2 / np.sqrt(MOTIONS)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_moves_along_one_axis_of_the_pose_only(name):
    axis = {"right": 0, "left": 0, "up": 1, "down": 1, "swing_h": 0, "swing_v": 1}.get(name, 2 + (name in CLASSES[6:]))
    moved = np.abs(steps(many_poses(name, 20))).max((0, 1))
    assert moved[axis] > 0.01
    assert np.delete(moved, axis).max() == 0


@pytest.mark.parametrize("pair", MIRRORED)
def test_paired_classes_are_each_other_played_backwards(pair):
    forwards, backwards = steps(many_poses(pair[0])), steps(many_poses(pair[1])[:, ::-1])
    for quantile in (0.01, 0.5, 0.99):
        a, b = (np.quantile(moves.sum(2), quantile) for moves in (forwards, backwards))
        assert a == pytest.approx(b, rel=0.05)
    assert np.sign(forwards.sum()) == np.sign(backwards.sum())


@pytest.mark.parametrize("name", ["swing_h", "swing_v"])
def test_swings_go_both_ways_alike(name):
    moves = steps(many_poses(name)).sum(2)
    assert abs(moves.mean()) < 0.05 * np.abs(moves).mean()
    assert (moves > 0).mean() == pytest.approx(0.5, abs=0.03)


def where(name, frame):
    """Mean position (x, y) of the sprite's first texels on the screen, and how many pixels it covers."""
    path = np.tile([0.5, 0.5, 0.0, 0.5], (FRAMES, 1))
    path += poses(name, np.random.default_rng(0)) - poses(name, np.random.default_rng(0))[0]
    rows, columns = np.divmod(synthetic._texels(path % 1)[frame], synthetic._TEXELS)
    # A patch of the sprite on its own right-hand side, halfway to the rim.
    centre = (synthetic._TEXELS - 1) / 2
    patch = (np.abs(rows - centre) < 8) & (np.abs(columns - 1.5 * centre) < 8)
    return *(axis.mean() for axis in np.nonzero(patch)[::-1]), patch.sum()


@pytest.mark.parametrize(
    ("name", "measure", "sign"),
    [
        ("right", 0, 1),
        ("left", 0, -1),
        ("down", 1, 1),
        ("up", 1, -1),
        ("spin_cw", 1, 1),  # what lies on the right goes down
        ("spin_ccw", 1, -1),
        ("grow", 2, 1),
        ("shrink", 2, -1),
    ],
)
def test_classes_do_on_the_screen_what_they_are_called(name, measure, sign):
    before, after = where(name, 0)[measure], where(name, 3)[measure]
    assert (after - before) * sign > 1


def test_the_sprite_is_brighter_than_its_background_whatever_it_is():
    for seed in range(40):
        look = synthetic._draw_look(np.random.default_rng(seed))
        sprite = look.sprite[look.alpha > 0.99] @ synthetic._LUMA
        assert 0.15 < sprite.mean() - (look.background @ synthetic._LUMA).mean() < 0.45


def test_the_sprite_ends_before_the_rim_of_its_texture():
    for seed in range(40):
        look = synthetic._draw_look(np.random.default_rng(seed))
        alpha = look.alpha.reshape(synthetic._TEXELS, -1)
        assert max(alpha[0].max(), alpha[-1].max(), alpha[:, 0].max(), alpha[:, -1].max()) == 0
        assert 0.1 < alpha.mean() < 0.8


def test_the_world_wraps_around():
    look = synthetic._draw_look(np.random.default_rng(0))
    background = look.background @ synthetic._LUMA
    seam = np.abs(background[:, 0] - background[:, -1]).mean()
    assert seam < 2 * np.abs(np.diff(background, axis=1)).mean()
    path = np.array([[0.2, 0.3, 0.1, 0.5], [0.2 + 16 / 64, 0.3 - 32 / 64, 0.1, 0.5]]) % 1
    here, there = synthetic._texels(path)
    assert (np.roll(here, (-32, 16), (0, 1)) == there).mean() > 0.99


def test_a_single_frame_does_not_separate_the_classes():
    """A nearest-mean classifier of small frames is at chance, for each of three frame numbers."""
    small = {
        split: np.stack([[render(split, c, i)[[0, 11, 23], 4::8, 4::8] for i in range(12)] for c in range(10)])
        for split in SPLITS
    }
    train, test = (small[split].astype(float).reshape(10, 12, 3, -1) for split in SPLITS)
    means = train.mean(1)
    for frame in range(3):
        distances = ((test[:, :, None, frame] - means[None, None, :, frame]) ** 2).sum(-1)
        right = (distances.argmin(2) == np.arange(10)[:, None]).mean()
        assert right < 0.22  # chance .10, standard error .03
