"""How radii and frame counts are written on a command line."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

from robustvid.errors import BudgetError

if TYPE_CHECKING:
    from robustvid.budget import Budget

DEFAULT_LINF = "1/255,2/255,4/255,8/255"
DEFAULT_L2_CLIP = "0.5,1.0,2.0,4.0"

_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}"
_RANGE = re.compile(
    rf"(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})(?P<kind>[:*])(?P<step>{_NUMBER})(?:/(?P<over>[1-9][0-9]{{0,8}}))?"
)


def parse_radii(text: str) -> list[Fraction | float]:
    """Read a list of radii: ``8/255``, ``0.5``, ``1/255,2/255``, ``2..8:2/255`` (step) or ``1..16*2/255`` (factor).

    Raises:
        BudgetError: a part of the text is none of these.
    """
    radii = [radius for part in text.split(",") for radius in _read_part(part.strip())]
    unique = dict.fromkeys(radius for radius in radii if radius != 0)  # radius 0, the clean clip, is always measured
    if not unique:
        raise BudgetError(f"{text!r} holds no radius above 0; the clean accuracy is measured anyway")
    return list(unique)


def parse_frames(text: str) -> list[int | None]:
    """Read how many frames may change: ``1,2,4,all``; None stands for all.

    Raises:
        BudgetError: a part is neither a whole number above 0 nor ``all``.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part != "all" and not (part.isdecimal() and len(part) < 10 and int(part) > 0):
            raise BudgetError(f"--frames {text}: {part!r} is neither a number of frames nor 'all'")
    return [None if part == "all" else int(part) for part in parts]


def make_budgets(norm: str | None, eps_frame: str | None, eps_clip: str | None, frames: str | None) -> list[Budget]:
    """Return the cross product of the radii and frame counts given, as budgets.

    Without any radius: linf over frames, and, if no norm is named, l2 over the clip.

    Raises:
        BudgetError: the text cannot be read, or the combination means nothing.
    """
    from robustvid.budget import Budget

    if norm is None and eps_frame is None and eps_clip is None and frames is None:
        return [
            *make_budgets("linf", DEFAULT_LINF, None, None),
            *make_budgets("l2", None, DEFAULT_L2_CLIP, None),
        ]
    chosen = norm or ("l2" if eps_clip is not None else "linf")
    if eps_frame is None and eps_clip is None:
        eps_frame, eps_clip = (DEFAULT_LINF, None) if chosen == "linf" else (None, DEFAULT_L2_CLIP)
    return [
        Budget(chosen, frame, clip, count)
        for count, clip, frame in product(
            parse_frames(frames) if frames else [None],
            parse_radii(eps_clip) if eps_clip else [None],
            parse_radii(eps_frame) if eps_frame else [None],
        )
    ]


def _read_part(part: str) -> list[Fraction | float]:
    from robustvid.budget import parse_radius

    if ".." not in part:
        return [parse_radius(part)]
    match = _RANGE.fullmatch(part)
    if match is None:
        raise BudgetError(f"{part!r} is not a range; write 2..8:2/255 (step) or 1..16*2/255 (factor)")
    low, high, step = (Fraction(match[name]) for name in ("low", "high", "step"))
    if not (0 <= low <= high and step > (1 if match["kind"] == "*" else 0)) or (match["kind"] == "*" and low == 0):
        raise BudgetError(f"{part!r} does not rise: a range goes up, by a step above 0 or a factor above 1")
    values = [low]
    while (after := (values[-1] + step if match["kind"] == ":" else values[-1] * step)) <= high:
        values.append(after)
        if len(values) > 1000:
            raise BudgetError(f"{part!r} has more than 1000 radii")
    return [value / int(match["over"]) if match["over"] else float(value) for value in values]
