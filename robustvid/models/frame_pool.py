"""A 2D CNN on every frame, then pooling over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from robustvid.models.architectures import call_builder
from robustvid.models.frames import FrameFeatures
from robustvid.models.pooling import POOLINGS


class FramePool(nn.Module):
    """Features of single frames, pooled over time, averaged over what is left of space and time, and classified.

    With a temporal pooling the order of the frames cannot matter: a control for how much of a dataset is motion.

    Args:
        classes: number of logits, K.
        pooling: a module that pools feature maps ``(B, C, T, H, W)``.
        widths: channels after each convolution of the CNN.
    """

    def __init__(self, classes: int, pooling: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.frames = FrameFeatures(widths)
        self.pooling = pooling
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)`` of normalised clips ``(B, 3, T, H, W)``; T, H and W at least 1."""
        pooled = self.pooling(self.frames(clips))
        logits: Tensor = self.head(pooled.flatten(2).mean(2))
        return logits


def build(
    classes: int,
    pooling: str = "temporal_average",
    pooling_options: Mapping[str, Any] | None = None,
    widths: Sequence[int] = (16, 32, 64, 96),
) -> FramePool:
    """Return an untrained ``FramePool``.

    Args:
        classes: number of logits.
        pooling: name in ``pooling.POOLINGS``.
        pooling_options: keyword arguments of the pooling, such as ``{"window": (2, 2, 2)}``.
        widths: channels after each convolution of the CNN.

    Raises:
        UnknownNameError: there is no such pooling.
        ModelError: the pooling takes no such options.
    """
    pool = call_builder(pooling, POOLINGS.load(pooling), **(pooling_options or {}))
    return FramePool(classes, pool, widths)
