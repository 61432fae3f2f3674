"""Pooling over time, and over space and time.

Feature maps are ``(B, C, T, H, W)``, features of frames are ``(B, T, F)``; T is the time axis.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robustvid.registry import Registry

Size = tuple[int, int, int]

POOLINGS = Registry(
    "pooling",
    {
        "temporal_max": "robustvid.models.pooling:TemporalMax",
        "temporal_average": "robustvid.models.pooling:TemporalAverage",
        "spatiotemporal_max": "robustvid.models.pooling:SpatiotemporalMax",
        "spatiotemporal_average": "robustvid.models.pooling:SpatiotemporalAverage",
    },
)


def _time_axis(features: Tensor) -> int:
    return 2 if features.ndim == 5 else 1


class TemporalMax(nn.Module):
    """Maximum over all frames: ``(B, C, T, H, W)`` to ``(B, C, H, W)``, or ``(B, T, F)`` to ``(B, F)``.

    "Conv pooling" of Ng et al., "Beyond Short Snippets", arXiv:1503.08909. Blind to the order of the frames.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the maximum over the time axis."""
        return features.amax(_time_axis(features))


class TemporalAverage(nn.Module):
    """Mean over all frames: ``(B, C, T, H, W)`` to ``(B, C, H, W)``, or ``(B, T, F)`` to ``(B, F)``.

    The segment consensus of Wang et al., "Temporal Segment Networks", arXiv:1608.00859. Blind to the order of
    the frames.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the mean over the time axis."""
        return features.mean(_time_axis(features))


class _Boxes(nn.Module):
    """Boxes of space and time, to be pooled one way or another."""

    def __init__(self, window: Size, stride: Size | None = None) -> None:
        super().__init__()
        self.window = window
        self.stride = window if stride is None else stride


class SpatiotemporalMax(_Boxes):
    """Maximum over boxes of space and time: ``(B, C, T, H, W)`` to ``(B, C, T', H', W')``.

    Pooling of Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", arXiv:1412.0767.
    Any size of at least 1 goes in: a window longer than the map is shortened to it, and the last box may reach
    over the edge, where it is cut. T' = ceil((T - window) / stride) + 1, less a box that would start outside.

    Args:
        window: size of a box in (frames, rows, columns).
        stride: distance between boxes in (frames, rows, columns); ``None`` puts them side by side.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the maximum of every box."""
        return F.max_pool3d(features, _fitting(self.window, features), self.stride, ceil_mode=True)


class SpatiotemporalAverage(_Boxes):
    """Mean over boxes of space and time: ``(B, C, T, H, W)`` to ``(B, C, T', H', W')``.

    As ``SpatiotemporalMax``; a box cut at the edge is averaged over what is inside.

    Args:
        window: size of a box in (frames, rows, columns).
        stride: distance between boxes in (frames, rows, columns); ``None`` puts them side by side.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the mean of every box."""
        return F.avg_pool3d(features, _fitting(self.window, features), self.stride, ceil_mode=True)


def _fitting(window: Size, features: Tensor) -> Size:
    frames, rows, columns = (min(box, size) for box, size in zip(window, features.shape[2:], strict=True))
    return frames, rows, columns
