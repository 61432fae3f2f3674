"""Adversarial weight perturbation: the loss is lowered where the weights are worst nearby."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_TINY = 1e-12


@contextmanager
def perturbed_weights(model: nn.Module, loss: Callable[[], Tensor], gamma: float) -> Iterator[None]:
    """Move the weights to where ``loss`` is larger, and afterwards bring them back bit for bit.

    w ← w + γ·‖w‖·∇_w L / ‖∇_w L‖ for every tensor of more than one axis; biases and BatchNorm stay. Buffers are after
    the ascent what they were. Costs one forward and one backward.

    Args:
        model: in training mode.
        loss: a function of the weights as they are when it is called.
        gamma: γ, relative to each tensor's norm.

    References:
        Wu, Xia & Wang, "Adversarial Weight Perturbation Helps Robust Generalization", arXiv:2004.05884.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim > 1]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    grads = torch.autograd.grad(loss(), weights, allow_unused=True)
    saved = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
        for weight, grad in zip(weights, grads, strict=True):
            if grad is not None:
                weight.add_(grad * (gamma * weight.norm() / (grad.norm() + _TINY)))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, saved, strict=True):
                weight.copy_(before)
