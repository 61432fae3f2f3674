"""Threats: budgets of one kind, ordered by inclusion, so that a clip broken in one is broken in every larger one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustvid.budget import SLACK, Budget, format_radius, frames_touched
from robustvid.errors import BudgetError


class Sizes(NamedTuple):
    """How large one perturbation is, by every measure a budget may use."""

    linf: float
    l2_frame_max: float
    l2_clip: float
    frames_touched: int


@dataclass(frozen=True)
class Threat:
    """Budgets of one norm that bound the same things, small ones first.

    Attributes:
        name: ``"linf-frame"``, ``"l2-clip"``, ``"l2-frame-clip"``; with ``-k`` where frames are limited.
        budgets: sorted, so that no budget contains a later one.
    """

    name: str
    budgets: tuple[Budget, ...]

    @cached_property
    def inside(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return the inclusion table ``(K, K)``: [a, b] is true where budget a is a subset of budget b."""
        return np.asarray((self._limits[:, None] <= self._limits).all(2))

    @property
    def is_ladder(self) -> bool:
        """Return whether every budget lies inside the next."""
        return bool(np.triu(self.inside).sum() == len(self.budgets) * (len(self.budgets) + 1) // 2)

    def batch(self, cells: Sequence[int], frames: int) -> Budget:
        """Return one budget whose radii are tensors: clip i has the budget ``cells[i]``; clips have ``frames`` frames.

        A cell without a limit on frames is given all of them.
        """
        chosen = [self.budgets[cell] for cell in cells]
        columns: dict[str, Tensor | None] = {
            name: None
            if getattr(chosen[0], name) is None
            else torch.tensor([float(getattr(budget, name)) for budget in chosen], dtype=torch.float64)
            for name in ("frame", "clip")
        }
        counts = None
        if any(budget.frames is not None for budget in chosen):
            counts = torch.tensor([frames if b.frames is None else int(b.frames) for b in chosen])
        return Budget(chosen[0].norm, columns["frame"], columns["clip"], counts)

    def holds(self, sizes: Sizes, pixels: int, frames: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return ``(K,)``: which budgets hold a perturbation of these sizes, ``pixels`` values a frame."""
        root = math.sqrt(pixels)
        norm, slack = (sizes.linf, SLACK) if self.budgets[0].norm == "linf" else (sizes.l2_frame_max, SLACK * root)
        measured = np.array([norm - slack, sizes.l2_clip - SLACK * root * math.sqrt(frames), sizes.frames_touched])
        return np.asarray((measured <= self._limits).all(1))

    @cached_property
    def _limits(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([_radii(budget) for budget in self.budgets])


def group_threats(budgets: Sequence[Budget]) -> list[Threat]:
    """Sort budgets into threats, in order of first appearance; equal budgets count once.

    Raises:
        BudgetError: there are none, or a budget has tensors for radii.
    """
    if not budgets:
        raise BudgetError("no budgets to sweep: give at least one radius")
    groups: dict[tuple[str, bool, bool], dict[tuple[float, ...], Budget]] = {}
    for budget in budgets:
        if any(isinstance(radius, Tensor) for radius in (budget.frame, budget.clip, budget.frames)):
            raise BudgetError("a sweep takes budgets with plain radii; it makes the per-clip tensors itself")
        kind = (budget.norm, budget.frame is not None, budget.clip is not None)
        groups.setdefault(kind, {}).setdefault(_radii(budget), budget)
    return [_threat(kind, group) for kind, group in groups.items()]


def _threat(kind: tuple[str, bool, bool], group: dict[tuple[float, ...], Budget]) -> Threat:
    norm, frame, clip = kind
    budgets = tuple(sorted(group.values(), key=lambda budget: _radii(budget)[::-1]))
    parts = [norm, *(["frame"] if frame else []), *(["clip"] if clip else [])]
    if any(budget.frames is not None for budget in budgets):
        parts.append("k")
    return Threat("-".join(parts), budgets)


def cell_text(budget: Budget | None) -> dict[str, str | int | None]:
    """Return a budget as rows and reports write it: ``eps_frame``, ``eps_clip`` as text, ``frames`` as a number."""
    if budget is None:
        return {"eps_frame": None, "eps_clip": None, "frames": None}
    frames = None if budget.frames is None else int(budget.frames)
    return {"eps_frame": format_radius(budget.frame), "eps_clip": format_radius(budget.clip), "frames": frames}


def measure(delta: Tensor) -> list[Sizes]:
    """Return the sizes of each perturbation ``(B, C, T, H, W)``, computed in float64."""
    delta = delta.detach().double()
    squares = delta.square().sum((1, 3, 4))
    columns = zip(
        delta.abs().amax((1, 2, 3, 4)).tolist(),
        squares.amax(1).sqrt().tolist(),
        squares.sum(1).sqrt().tolist(),
        frames_touched(delta).tolist(),
        strict=True,
    )
    return [Sizes(*column) for column in columns]


def _radii(budget: Budget) -> tuple[float, float, float]:
    values = (budget.frame, budget.clip, budget.frames)
    frame, clip, frames = (math.inf if value is None else float(value) for value in values)
    return frame, clip, frames
