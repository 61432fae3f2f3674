"""A 2D CNN on every frame, then a recurrent network over time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustvid.models.frames import FrameFeatures
from robustvid.registry import Registry

CELLS = Registry("recurrent cell", {"gru": "torch.nn:GRU", "lstm": "torch.nn:LSTM"})


class FrameRNN(nn.Module):
    """A GRU or LSTM that reads features of the frames one after the other, at every place of the feature map.

    After Donahue et al., "Long-term Recurrent Convolutional Networks for Visual Recognition and Description",
    arXiv:1411.4389, who read one vector per frame. Here each place of the map is read by itself, with the same
    weights, and the states are averaged over time and places: motion is seen where it happens, wherever that is.

    Args:
        classes: number of logits, K.
        cell: name in ``CELLS``.
        widths: channels after each convolution of the CNN.
        hidden: size of the recurrent state.
    """

    def __init__(self, classes: int, cell: str, widths: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.frames = FrameFeatures(widths)
        self.rnn = CELLS.load(cell)(widths[-1], hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)`` of normalised clips ``(B, 3, T, H, W)``; T, H and W at least 1."""
        maps = self.frames(clips)
        B, C, T, H, W = maps.shape
        states = self._read(maps.permute(0, 3, 4, 2, 1).reshape(B * H * W, T, C))
        logits: Tensor = self.head(states.unflatten(0, (B, H * W)).mean((1, 2)))
        return logits

    def _read(self, features: Tensor) -> Tensor:
        """Return the states ``(N, T, hidden)`` after each frame of ``features`` ``(N, T, C)``."""
        # cuDNN's recurrent networks refuse to go backward in evaluation mode, where attacks take place.
        cudnn = torch.backends.cudnn.enabled and (self.training or not torch.is_grad_enabled())
        with torch.backends.cudnn.flags(enabled=cudnn):
            states: Tensor = self.rnn(features)[0]
        return states


def build(classes: int, cell: str = "gru", widths: Sequence[int] = (16, 32, 48, 64), hidden: int = 96) -> FrameRNN:
    """Return an untrained ``FrameRNN``; the default has 0.09 M parameters.

    Args:
        classes: number of logits.
        cell: ``"gru"`` or ``"lstm"``.
        widths: channels after each convolution of the CNN; each halves height and width.
        hidden: size of the recurrent state.

    Raises:
        UnknownNameError: there is no such cell.
    """
    return FrameRNN(classes, cell, widths, hidden)
