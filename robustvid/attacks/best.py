"""The best that an attack has found so far, for every clip of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustvid.attacks.goal import Goal

RESTART = 1_000_003  # seeds of restarts lie so far apart; any odd number keeps them distinct


def put(into: Tensor, places: Tensor, clips: Tensor, rows: Tensor) -> None:
    """Do ``into[places] = clips[rows]``, both ascending; on a CPU in half of the time, as nothing is gathered first."""
    if len(rows) == len(clips) == len(into):
        into.copy_(clips)
    elif into.device.type == "cpu":
        for place, row in zip(places.tolist(), rows.tolist(), strict=True):
            into[place].copy_(clips[row])
    else:
        into[places] = clips[rows]


class Best:
    """The iterate of the largest gap of every clip, and whether the clip is done.

    Attributes:
        clips: ``(B, C, T, H, W)``; the clean clip until anything was offered.
        gap: ``(B,)``, see :meth:`Goal.gap`; -inf until anything was offered.
        met: bool ``(B,)``: the goal is met, so that the clip can be left alone.
    """

    def __init__(self, clips: Tensor) -> None:
        self.clips = clips.clone()
        self.gap = clips.new_full((len(clips),), -torch.inf)
        self.met = torch.zeros(len(clips), dtype=torch.bool, device=clips.device)

    def offer(self, index: Tensor, clips: Tensor, gap: Tensor, met: Tensor) -> None:
        """Keep those of ``clips`` that are better than what is known of the clips at ``index``."""
        before = self.met[index]  # what met the goal is never given up for what did not
        better = (met & ~before) | ((met == before) & (gap > self.gap[index]))
        rows = better.nonzero().squeeze(1)
        put(self.clips, index[rows], clips, rows)
        self.gap[index[better]] = gap[better].to(self.gap.dtype)
        self.met[index] |= met

    def score(self, index: Tensor, clips: Tensor, logits: Tensor, goal: Goal) -> Tensor:
        """Offer iterates by their logits; return which of them still stand, as places in ``index``.

        Args:
            index: ``(A,)``, places of the active clips in the batch.
            clips: ``(A, C, T, H, W)``.
            logits: ``(A, K)``.
            goal: of the active clips.
        """
        met = goal.met(logits)
        self.offer(index, clips, goal.gap(logits), met)
        return (~met).nonzero().squeeze(1)

    def standing(self) -> Tensor:
        """Return the places of the clips whose goal is not met."""
        return (~self.met).nonzero().squeeze(1)


def only_transfers(model: nn.Module) -> bool:
    """Return whether ``model`` stands in for another one that will be measured.

    A surrogate carries ``surrogate = True``. To fool it once is not enough then: attacks spend all their steps and
    return the iterate that the surrogate is most wrong about.
    """
    return bool(getattr(model, "surrogate", False))
