"""What the per-frame models share: a small 2D CNN and how clips pass through it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class FrameFeatures(nn.Module):
    """A 2D CNN that sees every frame by itself: 3×3 convolutions of stride 2 with BatchNorm and ReLU.

    Args:
        widths: channels after each convolution.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_convolution(*pair) for pair in pairwise((3, *widths))))

    def forward(self, clips: Tensor) -> Tensor:
        """Return feature maps ``(B, C, T, H', W')`` of clips ``(B, 3, T, H, W)``; each layer halves H and W."""
        B, C, T, H, W = clips.shape
        maps: Tensor = self.layers(clips.transpose(1, 2).reshape(B * T, C, H, W))
        return maps.reshape(B, T, *maps.shape[1:]).transpose(1, 2)


def _convolution(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
