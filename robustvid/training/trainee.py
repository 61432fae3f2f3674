"""The model in training as attacks see it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainee(nn.Module):
    """A model that answers in the precision of training, and on which attacks spend all their steps.

    Training needs the worst clip in the budget; an attack that stops at the first wrong answer finds the nearest.
    """

    surrogate = True

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model, self.precision = model, precision

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)`` in float32."""
        with autocast(clips.device, self.precision):
            logits: Tensor = self.model(clips)
        return logits.float()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the context in which forwards run in ``precision``; none for ``fp32``."""
    return torch.autocast(device.type, _DTYPES[precision]) if precision in _DTYPES else nullcontext()
