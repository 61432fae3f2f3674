"""Budgets: how much each frame, and the whole clip, may change.

With v_t the norm of frame t's perturbation, a budget is the intersection of what is given: ``frame`` bounds every
v_t, ``clip`` bounds (Σ_t v_t²)^½ (l2 only), ``frames`` bounds how many frames change at all. Perturbations have
the layout of clips, ``(B, C, T, H, W)``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from robustvid.errors import BudgetError

Radius = Fraction | float | str | Tensor  # text is read when the budget is made

NORMS = ("linf", "l2")
_PIXELS = (1, 3, 4)  # the axes of one frame: channels, height, width
_CLIP = (1, 2, 3, 4)
_MOST_FRAMES = 10**6  # six digits, as `_PART` reads them
_PART = re.compile(r"(?P<name>frame|clip) (?P<radius>[0-9./e+-]+)|(?P<count>[0-9]{1,6}) frames?")
# A clip is stored as x + delta in float32, so delta is only known to about 2^-24 a pixel; the slack is absolute
# because at small radii a relative one would be either too tight for rounding or too loose for honesty.
SLACK = 2.0**-20


def parse_radius(text: str) -> Fraction | float:
    """Read ``"8/255"`` as an exact fraction and ``"0.5"`` as a float.

    Raises:
        BudgetError: the text is neither.
    """
    try:
        return Fraction(text) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError):
        raise BudgetError(f"{text!r} is not a radius; write a fraction such as 8/255 or a number such as 0.5") from None


def format_radius(radius: Radius | None) -> str | None:
    """Write a radius the way people do: fractions of 255 stay over 255."""
    if radius is None or isinstance(radius, str):
        return radius
    if isinstance(radius, Tensor):
        return f"one of {radius.numel()} radii"
    if isinstance(radius, Fraction) and radius.denominator != 1 and 255 % radius.denominator == 0:
        return f"{radius.numerator * (255 // radius.denominator)}/255"
    return str(radius)


@dataclass(frozen=True)
class Budget:
    """How much each frame, and the whole clip, may change.

    Args:
        norm: ``"linf"`` or ``"l2"``, the norm of one frame's perturbation.
        frame: bound on every frame's norm.
        clip: bound on the l2 norm of the whole clip; with ``linf`` it would be the same set as ``frame``.
        frames: at most so many frames change at all.

    Radii are in units of pixels in [0, 1]: a ``Fraction``, a float, text such as ``"4/255"``, or a tensor ``(B,)``
    that gives every clip of a batch its own radius (``frames`` likewise, int64).

    Raises:
        BudgetError: the combination means nothing; the message says what to write instead.

    Example:
        >>> Budget("linf", frame="8/255", frames=4).describe()
        'linf frame 8/255, 4 frames'
    """

    norm: str
    frame: Radius | None = None
    clip: Radius | None = None
    frames: int | Tensor | None = None

    def __post_init__(self) -> None:
        """Read radii given as text and refuse what means nothing."""
        if self.norm not in NORMS:
            raise BudgetError(f"no norm {self.norm!r}; robustvid measures frames in {' or '.join(NORMS)}")
        for name in ("frame", "clip"):
            object.__setattr__(self, name, _checked_radius(name, getattr(self, name), self.norm))
        if self.norm == "linf" and self.clip is not None:
            raise BudgetError(
                "with linf a bound on the whole clip is the same set as a bound on every frame: use frame= "
                f"(--eps-frame {format_radius(self.clip)}); for a budget of the clip as a whole limit how many frames "
                "change (frames=, --frames), or measure in l2 (--norm l2 --eps-clip)"
            )
        if self.frame is None and self.clip is None:
            raise BudgetError("a budget needs a radius: frame= for every frame, or clip= for the whole clip (l2)")
        if isinstance(self.frames, Tensor):
            if self.frames.dtype != torch.int64 or bool((self.frames < 1).any()):
                raise BudgetError("frames= as a tensor holds one int64 a clip, at least 1")
        elif self.frames is not None:
            object.__setattr__(self, "frames", _checked_count(self.frames))

    def project(self, delta: Tensor) -> Tensor:
        """Return the point of the budget nearest to ``delta`` ``(B, C, T, H, W)`` in the Euclidean sense.

        Exact for every combination. With ``frame`` and ``clip`` together frame t gets the norm
        min(frame, v_t / (1 + λ)), λ ≥ 0 found by sorting; with ``frames`` the frames stay that bring the result
        closest. What is inside stays as it is, and nothing is ever enlarged.
        """
        return self.project_(delta.clone())

    def project_(self, delta: Tensor) -> Tensor:
        """Return what :meth:`project` does, made in the memory of ``delta``: half the price of new tensors."""
        if self.norm == "linf":
            if self.frames is None:
                return self._clip_(delta)
            inside = self._clip_(delta.clone())
            return inside.mul_(self._keep((inside * (2 * delta - inside)).sum(_PIXELS, keepdim=True)))
        norms = frame_l2(delta)
        if self.frames is not None:
            kept = self._keep(norms)
            delta, norms = delta.mul_(kept), norms * kept
        radii = self._share(norms, enlarge=False)
        return delta.mul_(torch.where(norms > radii, radii / norms, 1))

    def _clip_(self, delta: Tensor) -> Tensor:
        if isinstance(self.frame, Fraction | float):
            return delta.clamp_(-float(self.frame), float(self.frame))
        eps = _column(self.frame, delta)
        torch.minimum(delta, eps, out=delta)  # clamp is three times slower with tensors
        return torch.maximum(delta, -eps, out=delta)

    def steepest(self, grad: Tensor, length: Tensor | float = 1.0) -> Tensor:
        """Return the perturbation inside the budget with the largest inner product with ``grad``, times ``length``.

        It has the full size of the budget, and is zero where the gradient is. linf takes ε·sign(g) in every frame, l2
        takes g scaled frame by frame or over the clip, ``frames`` keeps the frames with the largest dual norm.

        Args:
            grad: ``(B, C, T, H, W)``.
            length: of a step, in units of the budget; broadcastable.
        """
        if self.norm == "linf" and self.frames is None:
            return grad.sign().mul_(_column(self.frame, grad) * length)
        grad = grad / grad.abs().amax(_CLIP, keepdim=True).clamp_min(torch.finfo(grad.dtype).tiny)
        if self.frames is not None:
            grad.mul_(self.salient(grad))
        if self.norm == "linf":
            return grad.sign_().mul_(_column(self.frame, grad) * length)
        norms = frame_l2(grad)
        radii = self._share(norms, enlarge=True)
        return grad.mul_(torch.where(norms > 0, radii / norms, 0) * length)

    def salient(self, grad: Tensor) -> Tensor:
        """Return 1 for the ``frames`` frames where ``grad`` has the largest dual norm, else 0; ``(B, 1, T, 1, 1)``.

        Without ``frames`` every frame is chosen. Exact for a linear classifier: the gain separates over frames.
        """
        if self.frames is None:
            return torch.ones_like(grad[:, :1, :, :1, :1])
        return self._keep(grad.abs().sum(_PIXELS, keepdim=True) if self.norm == "linf" else frame_l2(grad))

    def start(self, like: Tensor, seeds: Tensor) -> Tensor:
        """Return a random perturbation inside the budget, shaped as ``like``.

        Uniform in the ball for one constraint (linf: every pixel; l2: Gaussian direction, radius U^{1/n}); with
        ``frame`` and ``clip`` the clip's draw is projected; with ``frames`` the frames are random too.

        Args:
            like: clips ``(B, C, T, H, W)`` that give shape, type and device.
            seeds: int64 ``(B,)``; clip i's draw depends on ``seeds[i]`` alone, whatever the device or batch.
        """
        draws = [self._draw(like.shape[1:], int(seed)) for seed in seeds.tolist()]
        delta = torch.stack(draws).to(like)
        delta = delta * _column(self.frame if self.clip is None else self.clip, delta)
        if self.frames is not None:
            lottery = torch.stack([torch.rand(like.shape[2], generator=_generator(int(s), 1)) for s in seeds.tolist()])
            delta = delta * self._keep(lottery.to(like)[:, None, :, None, None])
        return self.project_(delta)

    def size(self, delta: Tensor) -> Tensor:
        """Return the largest ratio of any constraint to its radius, float64 ``(B,)``: inside means at most 1.

        Rounding of ``x + delta`` in float32 is forgiven by an absolute slack of 2^-20 a pixel (times √n for l2).
        """
        delta = delta.detach()
        pixels = delta[0, :, 0].numel()
        ratios = []
        if self.frame is not None:
            norms = delta.abs().amax(_PIXELS).double() if self.norm == "linf" else frame_l2(delta, torch.float64)
            slack = SLACK * (1 if self.norm == "linf" else math.sqrt(pixels))
            ratios.append(_ratio(norms.flatten(1).amax(1), _column(self.frame, norms).flatten(), slack))
        if self.clip is not None:
            norm = torch.linalg.vector_norm(delta, dim=_CLIP, dtype=torch.float64)
            ratios.append(_ratio(norm, _column(self.clip, norm).flatten(), SLACK * math.sqrt(pixels * delta.shape[2])))
        if self.frames is not None:
            touched = frames_touched(delta).double()
            ratios.append(_ratio(touched, _column(self.frames, touched).flatten(), 0.0))
        return torch.stack(ratios).amax(0)

    def describe(self) -> str:
        """Return the budget in words: ``"linf frame 4/255"``, ``"l2 clip 2.0"``, ``"linf frame 8/255, 4 frames"``."""
        radii = [
            f"{name} {format_radius(r)}" for name, r in (("frame", self.frame), ("clip", self.clip)) if r is not None
        ]
        if isinstance(self.frames, Tensor):
            count = f", one of {self.frames.numel()} frame counts"
        else:
            count = "" if self.frames is None else f", {self.frames} frame{'s' if self.frames != 1 else ''}"
        return f"{self.norm} {', '.join(radii)}{count}"

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget as :meth:`describe` writes it: ``"linf frame 8/255, 4 frames"``, ``"l2 clip 2.0"``.

        Raises:
            BudgetError: the text is no such thing, or means nothing.
        """
        norm, _, rest = text.strip().partition(" ")
        given: dict[str, str | int] = {}
        for part in rest.split(","):
            match = _PART.fullmatch(part.strip())
            if match is None:
                raise BudgetError(f"{text!r} is not a budget; write 'linf frame 8/255, 4 frames' or 'l2 clip 2.0'")
            given |= {"frames": int(match["count"])} if match["count"] else {match["name"]: match["radius"]}
        return cls(norm, **given)  # type: ignore[arg-type]

    def scaled(self, factor: float | Fraction) -> Budget:
        """Return the budget with its radii times ``factor``; the number of frames stays.

        With linf a radius above 1, the whole pixel range, is 1.
        """
        radii = {name: getattr(self, name) * factor for name in ("frame", "clip") if getattr(self, name) is not None}
        if self.norm == "linf":
            radii = {name: r.clamp_max(1) if isinstance(r, Tensor) else min(r, 1.0) for name, r in radii.items()}
        return replace(self, **radii)

    def select(self, index: Tensor) -> Budget:
        """Return the budget of some clips of the batch: tensors are indexed, everything else holds for all."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value[index.to(value.device)] for name, value in tensors.items()})  # type: ignore[arg-type]

    def _draw(self, shape: torch.Size, seed: int) -> Tensor:
        generator = _generator(seed, 0)
        if self.norm == "linf":
            return torch.rand(shape, generator=generator) * 2 - 1
        ball = (0, 1, 2, 3) if self.clip is not None else (0, 2, 3)
        noise = torch.randn(shape, generator=generator)
        norm: Tensor = torch.linalg.vector_norm(noise, dim=ball, keepdim=True)
        radius = torch.rand(norm.shape, generator=generator).pow(norm.numel() / noise.numel())
        return noise / norm * radius

    def _keep(self, score: Tensor) -> Tensor:
        """Return 1 for the ``frames`` frames of highest score ``(B, 1, T, 1, 1)``, earlier frames first on ties."""
        rank = score.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
        return (rank < _column(self.frames, score)).to(score.dtype)

    def _share(self, norms: Tensor, *, enlarge: bool) -> Tensor:
        """Return the frame radii ``min(frame, s · norms)`` with the largest s that the clip's radius allows.

        ``enlarge=False`` keeps s at most 1 (projection), ``enlarge=True`` lets it grow (steepest ascent).
        """
        if self.clip is None:
            cap = _column(self.frame, norms).expand_as(norms)
            return torch.where(norms > 0, cap, 0) if enlarge else torch.minimum(norms, cap)
        limit = math.inf if enlarge else 1.0
        cap = torch.full_like(norms[:, :, :1], math.inf) if self.frame is None else _column(self.frame, norms)
        return _water_level(norms, cap, _column(self.clip, norms), limit)


def frame_l2(delta: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the norm of every frame, ``(B, 1, T, 1, 1)``; over neighbours in memory first, which is much faster."""
    planes = torch.linalg.vector_norm(delta, dim=(3, 4), keepdim=True, dtype=dtype)
    norms: Tensor = torch.linalg.vector_norm(planes, dim=1, keepdim=True)
    return norms


def frames_touched(delta: Tensor) -> Tensor:
    """Return how many frames of each perturbation ``(B, C, T, H, W)`` differ from zero at all, int64 ``(B,)``."""
    return delta.abs().amax(_PIXELS).gt(0).sum(1)


def _checked_radius(name: str, radius: Any, norm: str) -> Fraction | float | Tensor | None:
    if radius is None:
        return None
    if isinstance(radius, Tensor):
        if not bool((torch.isfinite(radius) & (radius >= 0)).all()):
            raise BudgetError(f"{name}= as a tensor holds one finite radius a clip, 0 or more")
        return radius
    given = parse_radius(radius) if isinstance(radius, str) else radius
    if isinstance(given, bool) or not isinstance(given, Real):
        raise BudgetError(f"{name}={radius!r} is not a radius; write a fraction such as 8/255 or a number such as 0.5")
    value = given if isinstance(given, Fraction) else float(given)
    if not (math.isfinite(value) and value >= 0):
        raise BudgetError(f"{name}={radius}: a radius is a finite number, 0 or more")
    if norm == "linf" and value > 1:
        advice = f"; did you mean {int(value)}/255?" if value == int(value) else ""
        raise BudgetError(f"{name}={format_radius(value)} is larger than the whole pixel range [0, 1]{advice}")
    return value


def _checked_count(frames: Any) -> int:
    if isinstance(frames, bool) or not isinstance(frames, Integral) or int(frames) < 1:
        raise BudgetError(f"frames={frames!r}: give a whole number of frames, at least 1")
    if int(frames) >= _MOST_FRAMES:
        raise BudgetError(f"frames: give less than {_MOST_FRAMES:,}; without it all frames may change")
    return int(frames)


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed + stream * 0x9E3779B97F4A7C15) % 2**63)


def _column(radius: Radius | int | None, like: Tensor) -> Tensor:
    """Return the radius as ``(B or 1, 1, 1, 1, 1)`` with the type and device of ``like``."""
    if isinstance(radius, Tensor):
        return radius.to(like).reshape(-1, 1, 1, 1, 1)
    if radius is None:
        raise BudgetError("this budget has no such radius")
    return torch.full((1, 1, 1, 1, 1), float(radius), dtype=like.dtype, device=like.device)


def _ratio(measured: Tensor, radius: Tensor, slack: float) -> Tensor:
    """Return measured / radius, where an excess within the slack counts as exactly 1 and 0 / 0 as 0."""
    snapped: Tensor = torch.where((measured > radius) & (measured <= radius + slack), radius, measured)
    return torch.where(snapped == 0, torch.zeros_like(snapped), snapped / radius)


def _water_level(norms: Tensor, cap: Tensor, radius: Tensor, limit: float) -> Tensor:
    """Return ``r_t = min(cap, s · v_t)`` with the largest ``s <= limit`` such that Σ r_t² ≤ radius².

    Sort v downwards. If the m largest frames sit at the cap, the others share what is left:
    s_m² = (radius² - m·cap²) / Σ_{i≥m} v_i². The right m is the first for which the next frame fits below the cap.
    """
    v, cap, radius = (t.double().flatten(1) for t in (norms, cap, radius))
    ordered = v.sort(dim=1, descending=True).values
    tail = ordered.square().flip(1).cumsum(1).flip(1)
    full = torch.arange(v.shape[1], device=v.device, dtype=v.dtype)
    spent = torch.where(full > 0, full * cap.square(), 0.0)  # not 0 · inf
    # Where only zeros remain they need nothing: every frame that moves sits at the cap, and s is as large as allowed.
    scale = torch.where(tail > 0, ((radius.square() - spent).clamp_min(0) / tail).sqrt(), math.inf)
    fits = (ordered > 0) & (scale * ordered <= cap)
    first = fits.to(torch.int8).argmax(1, keepdim=True)
    scale = torch.where(fits.any(1, keepdim=True), scale.gather(1, first), math.inf).clamp_max(limit)
    shares = torch.where(v > 0, torch.minimum(cap, scale * v), 0.0)
    return shares.to(norms.dtype).reshape(norms.shape)
