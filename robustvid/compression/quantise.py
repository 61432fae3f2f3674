"""Training with the rounding of int8 in sight, so that less is lost when the model is quantised in earnest."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from robustvid.compression.prune import noted, prunable
from robustvid.errors import ModelError
from robustvid.models.classifier import VideoClassifier

_SIGNED, _UNSIGNED = 127, 255


def with_rounding(model: VideoClassifier, calibration: Tensor) -> VideoClassifier:
    """Return a copy whose convolutions and linear layers round their weights and inputs to 8 bits in every forward.

    Weights have a symmetric scale for each output channel, which follows them; inputs have one range for the whole
    tensor, that of the calibration clips. Gradients go straight through the rounding, and are zero outside the range.
    Train the copy, then take :func:`without_rounding` and export that in int8.

    Args:
        model: stays as it is.
        calibration: clips ``(N, 3, T, H, W)`` in [0, 1] of the training split.

    References:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        arXiv:1712.05877.
    """
    rounded = copy.deepcopy(model).eval()
    inputs = {layer: _RoundedInput() for layer in prunable(rounded)}
    for layer, watch in inputs.items():
        layer.register_forward_pre_hook(watch)
    with torch.no_grad():
        for clips in calibration.split(32):
            rounded(clips.to(model.mean.device))
    for layer, watch in inputs.items():
        watch.settle(layer)
        parametrize.register_parametrization(layer, "weight", _RoundedWeight())
    return noted(rounded, {"step": "round", "bits": 8, "calibration": len(calibration)})


def without_rounding(rounded: VideoClassifier, like: VideoClassifier) -> VideoClassifier:
    """Return a copy of ``like`` with the float weights, the statistics and the card of what was trained.

    Args:
        rounded: what :func:`with_rounding` made of ``like``, trained or not.
        like: stays as it is.
    """
    plain = copy.deepcopy(like)
    state = rounded.state_dict()
    plain.load_state_dict({name.replace(".parametrizations.weight.original", ".weight"): state[name] for name in state})
    plain.card = rounded.card
    return plain


class _RoundedInput:
    """A hook that first watches the range of a layer's input, then rounds the input to 256 steps of it."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0  # zero is always a step: padding is zero
        self.scale, self.zero = 0.0, 0

    def settle(self, layer: nn.Module) -> None:
        """Watch no more, and round from now on."""
        if not self.high > self.low:
            raise ModelError(f"a {type(layer).__name__} sees nothing but zeros on the calibration clips")
        self.scale = (self.high - self.low) / _UNSIGNED
        self.zero = round(-self.low / self.scale)

    def __call__(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        (given,) = inputs
        if not self.scale:
            low, high = (float(bound) for bound in torch.aminmax(given.detach()))
            self.low, self.high = min(self.low, low), max(self.high, high)
            return None
        return (torch.fake_quantize_per_tensor_affine(given, self.scale, self.zero, 0, _UNSIGNED),)


class _RoundedWeight(nn.Module):
    """A weight rounded to 255 steps, symmetric about zero, for each output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = (weight.detach().abs().flatten(1).amax(1) / _SIGNED).clamp_min(1e-12)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -_SIGNED, _SIGNED)
