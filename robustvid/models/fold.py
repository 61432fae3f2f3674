"""The same model in fewer and faster operations: BatchNorm inside the convolutions, weights in the kernels' order."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Model = TypeVar("Model", bound=nn.Module)
_PAIRS = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))
_FORMATS = ((nn.Conv2d, torch.channels_last), (nn.Conv3d, torch.channels_last_3d))


def fold(model: Model) -> Model:
    """Return a copy in evaluation mode that computes the same function up to rounding, and sooner.

    A BatchNorm that follows a convolution in an ``nn.Sequential`` is multiplied into its weights; weights of
    convolutions are laid out channels-last, and activations follow. What else the model holds is copied as it is.

    Args:
        model: stays as it is. One that looks into its own ``Sequential`` for a BatchNorm may fail or answer otherwise:
            compare the copy's logits before trusting it.
    """
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    users = [id(child) for module in twin.modules() for child in module.children()]
    for block in twin.modules():
        if isinstance(block, nn.Sequential):
            for first, second in zip(list(block._modules), list(block._modules)[1:], strict=False):  # noqa: SLF001
                conv, norm = getattr(block, first), getattr(block, second)
                foldable = any(_is_plain(conv, c) and _is_plain(norm, n) for c, n in _PAIRS)
                if (
                    foldable
                    and norm.track_running_stats
                    and users.count(id(conv)) == 1 == users.count(id(norm))
                    and not _hooked(conv, norm)
                ):
                    setattr(block, first, fuse_conv_bn_eval(conv, norm))
                    setattr(block, second, nn.Identity())
    for module in twin.modules():
        for kind, memory_format in _FORMATS:
            if isinstance(module, kind):
                module.weight.data = module.weight.data.contiguous(memory_format=memory_format)
    return twin


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a module computes what its kind does, as torchvision's ``Conv3DSimple`` does."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def _hooked(*modules: nn.Module) -> bool:
    """Return whether somebody listens between the two, so that they must stay two."""
    return any(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks for module in modules)  # noqa: SLF001
