"""What training lowers: functions ``(model, clips, labels) -> loss``, the mean over the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from robustvid.registry import Registry

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]

OBJECTIVES = Registry("objective", {"natural": "robustvid.training.objectives:natural"})


def natural(model: nn.Module, clips: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy on the clips as they are: no attack.

    Args:
        model: in training mode.
        clips: float32 in [0, 1], ``(B, 3, T, H, W)``.
        labels: int64 ``(B,)``.
    """
    return F.cross_entropy(model(clips), labels)
