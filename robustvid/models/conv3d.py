"""A small 3D CNN with spatiotemporal pooling: the default model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from robustvid.models.pooling import SpatiotemporalMax


class Conv3D(nn.Module):
    """Four 3×3×3 convolutions with BatchNorm and ReLU, pooled over space and time.

    After Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", arXiv:1412.0767, at
    1/300 of the size. The first two convolutions are narrow and strided over space, because the gradient with
    respect to the pixels is the dear part of an attack step; they keep every frame.

    Args:
        classes: number of logits, K.
        widths: channels after each of the four convolutions.
    """

    def __init__(self, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.features = nn.Sequential(
            _convolution(3, first, stride=(1, 2, 2)),
            _convolution(first, second, stride=(1, 2, 2)),
            SpatiotemporalMax((2, 2, 2)),
            _convolution(second, third),
            SpatiotemporalMax((2, 2, 2)),
            _convolution(third, fourth),
        )
        self.head = nn.Linear(fourth, classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)`` of normalised clips ``(B, 3, T, H, W)``; T, H and W at least 1."""
        logits: Tensor = self.head(self.features(clips).mean((2, 3, 4)))
        return logits


def _convolution(channels: int, width: int, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(),
    )


def build(classes: int, widths: Sequence[int] = (8, 32, 64, 96)) -> Conv3D:
    """Return an untrained ``Conv3D``; the default has 0.23 M parameters.

    Args:
        classes: number of logits.
        widths: channels after each of the four convolutions.
    """
    return Conv3D(classes, widths)
