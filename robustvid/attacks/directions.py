"""From a gradient to the direction of a step: small pure transformations, chained like the equation they come from.

A direction is a pair of functions in the manner of a gradient transformation: ``init`` makes its memory for a batch,
``update`` maps (gradient, memory) to (gradient, memory). Memory is a tuple of tensors whose first axis is the clip, so
that the loop can drop clips that are already broken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Memory = tuple[Tensor, ...]


class Direction(NamedTuple):
    """A transformation of gradients ``(B, C, T, H, W)``."""

    init: Callable[[Tensor], Memory]
    update: Callable[[Tensor, Memory], tuple[Tensor, Memory]]


def unit() -> Direction:
    """Divide each clip's gradient by its mean absolute value: g / ‖g‖₁ up to the constant n."""

    def update(grad: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        scale = grad.abs().mean((1, 2, 3, 4), keepdim=True)
        return grad / scale.clamp_min(torch.finfo(grad.dtype).tiny), memory

    return Direction(lambda _: (), update)


def momentum(decay: float) -> Direction:
    """Accumulate: m ← decay · m + g, and go along m.

    Dong et al., "Boosting Adversarial Attacks with Momentum", arXiv:1710.06081.
    """

    def update(grad: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        (velocity,) = memory
        velocity = decay * velocity + grad
        return velocity, (velocity,)

    return Direction(lambda like: (torch.zeros_like(like),), update)


def chain(*directions: Direction) -> Direction:
    """Apply directions from left to right; ``chain()`` is the gradient itself."""

    def init(like: Tensor) -> Memory:
        return tuple(tensor for direction in directions for tensor in direction.init(like))

    def update(grad: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        kept: Memory = ()
        for direction in directions:
            size = len(direction.init(grad[:0]))
            grad, own = direction.update(grad, memory[:size])
            kept, memory = kept + own, memory[size:]
        return grad, kept

    return Direction(init, update)
