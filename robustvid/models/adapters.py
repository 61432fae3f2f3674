"""Networks of other conventions behind robustvid's: axes in another order, several pathways, probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustvid.errors import ModelError

LAYOUTS = ("BCTHW", "BTCHW")


class Adapted(nn.Module):
    """A network that takes clips ``(B, 3, T, H, W)`` and returns logits, made of one that does neither.

    Args:
        network: any module.
        layout: the order of the axes that it takes, ``"BCTHW"`` or ``"BTCHW"``.
        pathways: for networks that take a list of clips, such as SlowFast (Feichtenhofer et al., ICCV 2019): by how
            much each is slower, ``(4, 1)`` for slow and fast. Frames are chosen as PySlowFast does, inside the graph,
            so that one perturbation drives all pathways, and the list is a new one at each call.
        probabilities: the network ends in a softmax. Its logarithm is returned: the softmax of that are the same
            probabilities. What the softmax has rounded to 0 has no gradient, so taking the softmax out of the network
            is better.

    Raises:
        ModelError: there is no such layout, or a pathway is no positive whole number.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        layout: str = "BCTHW",
        pathways: Sequence[int] = (),
        probabilities: bool = False,
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS or any(type(slower) is not int or slower < 1 for slower in pathways):
            raise ModelError(f"layout={layout!r}, pathways={pathways}: wanted {' or '.join(LAYOUTS)}, and counts")
        self.network, self.layout = network, layout
        self.pathways, self.probabilities = tuple(pathways), probabilities

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)``.

        Raises:
            ModelError: the network returned neither a tensor nor something with ``logits``.
        """
        views = [slower_clips(clips, slower) for slower in self.pathways] or [clips]
        if self.layout == "BTCHW":
            views = [view.transpose(1, 2) for view in views]
        outputs = _logits(self.network(views if self.pathways else views[0]))
        return outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log() if self.probabilities else outputs


def slower_clips(clips: Tensor, slower: int) -> Tensor:
    """Return every ``slower``-th frame or so: ``T // slower`` places spread evenly from the first to the last frame."""
    frames = clips.shape[2]
    if slower == 1:
        return clips
    return clips[:, :, torch.linspace(0, frames - 1, frames // slower, device=clips.device).long()]


def _logits(output: Any) -> Tensor:
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise ModelError(f"the network returned {type(output).__name__}; wanted a tensor, or something with logits")
    return found
