"""motion10: ten motions that only time tells apart, drawn by arithmetic and stored as real H.264 files.

One textured sprite lies on one textured background. Its pose is a point on a 4-torus: ``x`` and ``y`` wrap
around the frame, orientation wraps around a turn, and the phase of a saw-tooth in log-size wraps from large to
small. A class is nothing but a way of moving on that torus. The first pose is uniform and independent of what
sprite and background look like; a shift leaves a uniform distribution on a torus uniform. Hence at every frame
number the pose is distributed alike for every class, and no single frame says anything about the label. Right
and left, up and down, the spins, and growing and shrinking are each other played backwards, so a bag of frames
without order says nothing about which of the two it is either.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FRAMES, SIZE, FPS = 24, 64, 12
CLASSES = ("right", "left", "up", "down", "spin_cw", "spin_ccw", "grow", "shrink", "swing_h", "swing_v")
SPLITS = ("train", "test")

_Array = NDArray[np.float32]

_X, _Y, _TURN, _GROWTH = range(4)
_STEP, _SPIN, _SCALE = (0.030, 0.050), (0.16 / (2 * np.pi), 0.30 / (2 * np.pi)), (0.035, 0.055)
# Class: axis of the pose, direction, least and greatest speed in periods per frame. Images have y downwards.
_DRIFTS = {
    "right": (_X, 1, _STEP),
    "left": (_X, -1, _STEP),
    "up": (_Y, -1, _STEP),
    "down": (_Y, 1, _STEP),
    "spin_cw": (_TURN, 1, _SPIN),
    "spin_ccw": (_TURN, -1, _SPIN),
    "grow": (_GROWTH, 1, _SCALE),
    "shrink": (_GROWTH, -1, _SCALE),
}
_SWINGS = {"swing_h": _X, "swing_v": _Y}

_SMALLEST, _LARGEST = 0.20, 0.42  # half-width of the sprite, in frame widths
_TEXELS = 96
_LUMA = np.array([0.299, 0.587, 0.114])
# What noise of 0.01 in each channel is in luma; its chroma would not survive the codec and takes long to draw.
_CAMERA_NOISE = np.float32(0.01 * np.linalg.norm(_LUMA))


def render(split: str, class_index: int, index: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return one video: the same arguments give the same pixels, different ones a video of its own.

    Args:
        split: ``"train"`` or ``"test"``; their random numbers never overlap.
        class_index: the class, by its place in ``CLASSES``.
        index: number of the video within its class.
        seed: number of the whole dataset.

    Returns:
        uint8 RGB, ``(24, 64, 64, 3)``.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), class_index, index])
    look = _draw_look(rng)
    texels = _texels(poses(CLASSES[class_index], rng))
    # In place throughout: a first use draws 1,600 of these.
    video = look.sprite.take(texels, axis=0)
    video -= look.background
    video *= look.alpha.take(texels)[..., None]
    video += look.background
    video += _CAMERA_NOISE * rng.standard_normal((*texels.shape, 1), dtype=np.float32)
    video *= 255
    video += 0.5
    return np.clip(video, 0, 255, out=video).astype(np.uint8)


def poses(class_name: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random motion of this class.

    Args:
        class_name: one of ``CLASSES``.
        rng: source of the random numbers.

    Returns:
        ``(24, 4)`` in [0, 1): x, y in frame widths, orientation in turns, phase of the growth.
    """
    time = np.arange(FRAMES)
    path = np.tile(rng.random(4), (FRAMES, 1))
    if class_name in _DRIFTS:
        axis, sign, speeds = _DRIFTS[class_name]
        path[:, axis] += sign * rng.uniform(*speeds) * time
    else:
        amplitude, omega, phase = rng.uniform((0.16, 0.45, 0), (0.24, 0.70, 2 * np.pi))
        path[:, _SWINGS[class_name]] += amplitude * np.sin(omega * time + phase)
    return path % 1


class _Look(NamedTuple):
    """Appearance: the sprite's texels ``(N, 3)``, their opacity ``(N,)``, and the background ``(H, W, 3)``."""

    sprite: _Array
    alpha: _Array
    background: _Array


def _draw_look(rng: np.random.Generator) -> _Look:
    luma = rng.uniform(0.2, 0.55)
    background = _colour(luma, rng) + 0.10 * _value_noise((4, 8, 16), SIZE, rng)[..., None]
    # Always brighter than the background: with free polarity motion is a second-order cue that small networks miss.
    dim, bright = _colour(luma + rng.uniform(0.2, 0.3), rng), _colour(luma + rng.uniform(0.3, 0.4), rng)
    grid = np.linspace(-1, 1, _TEXELS)
    place = grid[None, :] + 1j * grid[:, None]
    side = (place * np.exp(2j * np.pi * rng.random())).real - rng.uniform(-0.15, 0.15)
    sprite = np.where(side[..., None] > 0, bright, dim) + 0.04 * _value_noise((8, 16), _TEXELS, rng)[..., None]
    alpha = np.clip((_outline(place, rng) - abs(place)) * _TEXELS / 4 + 0.5, 0, 1)
    return _Look(
        sprite.reshape(-1, 3).astype(np.float32), alpha.ravel().astype(np.float32), background.astype(np.float32)
    )


def _outline(place: NDArray[np.complex128], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the sprite's radius in the direction of each ``place``: a circle with four random harmonics."""
    harmonics = np.arange(1, 5)
    weights = rng.uniform(0.05, 0.22, 4) / np.sqrt(harmonics)
    waves = np.cos(np.angle(place)[..., None] * harmonics + rng.uniform(0, 2 * np.pi, 4))
    radius: NDArray[np.float64] = np.clip(0.62 + waves @ weights, 0.3, 0.97)
    return radius


def _colour(luma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return an RGB colour of exactly this luma and a random tint."""
    tint = rng.normal(0, 0.08, 3)
    colour: NDArray[np.float64] = luma + tint - tint @ _LUMA
    return colour


def _value_noise(cells: tuple[int, ...], size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return smooth noise ``(size, size)`` within [-1, 1] that wraps around, finer octaves fainter."""
    noise = np.zeros((size, size))
    for octave, n in enumerate(cells):
        lattice = rng.uniform(-1, 1, (n, n))
        at = np.arange(size) * n / size
        low = at.astype(int)
        blend = (at - low) ** 2 * (3 - 2 * (at - low))
        high = (low + 1) % n
        rows = lattice[low] + (lattice[high] - lattice[low]) * blend[:, None]
        noise += 0.5**octave * (rows[:, low] + (rows[:, high] - rows[:, low]) * blend)
    noise /= abs(noise).max()
    return noise


def _texels(path: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return which texel of the sprite every pixel shows along a path of poses, ``(T, H, W)``.

    Pixels beside the sprite get texels of its transparent rim.
    """
    x, y, turn, growth = path.T
    pixel = (np.arange(SIZE) + 0.5) / SIZE
    across = (pixel - x[:, None] + 0.5) % 1 - 0.5
    along = (pixel - y[:, None] + 0.5) % 1 - 0.5
    half_width = _SMALLEST * (_LARGEST / _SMALLEST) ** growth
    to_sprite = np.exp(-2j * np.pi * turn) / half_width
    place = (across[:, None, :] + 1j * along[:, :, None]).astype(np.complex64)
    place *= to_sprite.astype(np.complex64)[:, None, None]
    columns, rows = (_nearest(part) for part in (place.real, place.imag))
    return rows * _TEXELS + columns


def _nearest(coordinate: _Array) -> NDArray[np.intp]:
    at = (coordinate + 1) * ((_TEXELS - 1) / 2) + 0.5
    return np.clip(at, 0, _TEXELS - 1, out=at).astype(np.intp)
