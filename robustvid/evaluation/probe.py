"""What attacks are given instead of the model: the same function, counted from outside and independent of the batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robustvid.contracts import in_lanes
from robustvid.errors import ModelError

# On a CPU eight clips fit its caches best. A GPU has enough to do with 16 of a model worth a GPU; more of them would be
# padding: half of what goes through the model with 64, see docs/results.md.
LANES = {"cpu": 8, "cuda": 16}


def number_on(device: torch.device, numbers: Mapping[str, int]) -> int:
    """Return the number for the kind of device; what has none of its own counts as a GPU."""
    return numbers.get(device.type, numbers["cuda"])


def lanes_on(device: torch.device) -> int:
    """Return how many clips the model is called on at once: the shape that every kernel sees, whatever the batch."""
    return number_on(device, LANES)


class Probe(nn.Module):
    """A model that counts what it is asked and answers each clip the same way in any company.

    The model runs on batches of exactly ``lanes`` clips, see :func:`~robustvid.contracts.in_lanes`.

    Args:
        model: the network to ask.
        lanes: clips in every call of it.
        surrogate: it is attacked in place of the model that is measured, so that attacks spend all their steps.

    Attributes:
        forwards: clips that went through the model.
        backwards: clips whose gradient was asked for.
        lanes: clips in every call of the model.
        surrogate: as given.
    """

    def __init__(self, model: nn.Module, lanes: int, *, surrogate: bool = False) -> None:
        super().__init__()
        self.model = model
        card = getattr(model, "card", None)
        self.classes = len(card.classes) if card is not None else None
        self.lanes = lanes
        self.surrogate = surrogate
        self.forwards = 0
        self.backwards = 0

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)`` in float32."""
        self.forwards += len(clips)
        logits = in_lanes(self.model, clips, self.lanes).float()
        if self.classes is not None and logits.shape[1] != self.classes:
            raise ModelError(f"the model returned {logits.shape[1]} logits for {self.classes} classes")
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, grad: Tensor) -> None:
        self.backwards += len(grad)
