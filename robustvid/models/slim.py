"""A network whose layers have lost channels: built whole, then cut to the shapes that its card tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustvid.errors import ModelError
from robustvid.models.architectures import ARCHITECTURES, call_builder

_CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.Conv3d
_NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def build(classes: int, arch: str, options: Mapping[str, Any], channels: Mapping[str, Sequence[int]]) -> nn.Module:
    """Return an untrained network of ``arch`` with fewer channels.

    Args:
        classes: number of logits.
        arch: architecture of the whole network.
        options: its keyword arguments.
        channels: for each layer that differs, by its name: inputs and outputs, or the features of a BatchNorm.

    Raises:
        ModelError: there is no such layer, or it is of a kind that is not cut.
    """
    network: nn.Module = call_builder(arch, ARCHITECTURES.load(arch), classes, **options)
    layers = dict(network.named_modules())
    for name, sizes in channels.items():
        if name not in layers:
            raise ModelError(f"{arch} has no layer {name!r} to cut")
        _cut(layers[name], name, [int(size) for size in sizes])
    return network


def cut_channels(whole: nn.Module, slim: nn.Module) -> dict[str, list[int]]:
    """Return ``channels`` for :func:`build`: the sizes of those layers of ``slim`` that are not as in ``whole``."""
    layers = dict(whole.named_modules())
    told = {name: _sizes(layer) for name, layer in slim.named_modules() if name in layers}
    return {name: sizes for name, sizes in told.items() if sizes and sizes != _sizes(layers[name])}


def _sizes(layer: nn.Module) -> list[int]:
    if isinstance(layer, _CONVOLUTIONS):
        return [layer.in_channels, layer.out_channels]
    if isinstance(layer, nn.Linear):
        return [layer.in_features, layer.out_features]
    return [layer.num_features] if isinstance(layer, _NORMS) else []


def _cut(layer: nn.Module, name: str, sizes: list[int]) -> None:
    if len(sizes) != len(_sizes(layer)) or min(sizes, default=0) < 1:
        raise ModelError(f"layer {name!r}, a {type(layer).__name__}, cannot be cut to {sizes}")
    if isinstance(layer, _CONVOLUTIONS):
        layer.in_channels, layer.out_channels = sizes
        groups = sizes[0] if layer.groups > 1 else 1  # depthwise stays depthwise
        if layer.groups > 1 and sizes[1] % groups:
            raise ModelError(f"layer {name!r} has groups and cannot be cut to {sizes}")
        layer.groups = groups
        layer.weight = _new(layer.weight, (sizes[1], sizes[0] // groups, *layer.weight.shape[2:]))
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = sizes
        layer.weight = _new(layer.weight, (sizes[1], sizes[0]))
    elif isinstance(layer, _NORMS):
        (layer.num_features,) = sizes
        if layer.affine:
            layer.weight = _new(layer.weight, (sizes[0],))
        for statistic in ("running_mean", "running_var"):
            if getattr(layer, statistic) is not None:
                setattr(layer, statistic, torch.full((sizes[0],), float(statistic == "running_var")))
    if isinstance(bias := getattr(layer, "bias", None), Tensor):
        layer.bias = _new(bias, (sizes[-1],))


def _new(old: Tensor, shape: tuple[int, ...]) -> nn.Parameter:
    """Return a parameter of another shape; its values come from the checkpoint."""
    return nn.Parameter(torch.zeros(shape, dtype=old.dtype), requires_grad=old.requires_grad)
