"""A network with its card: clips in [0, 1] go in, logits come out, normalisation is inside."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from robustvid.contracts import ModelCard
from robustvid.errors import ClipError, ModelError
from robustvid.models.architectures import ARCHITECTURES, call_builder


class VideoClassifier(nn.Module):
    """A video classifier that attacks can be measured on: they never see a mean or a layout.

    Args:
        network: maps normalised clips ``(B, 3, T, H, W)`` to logits ``(B, K)``.
        card: what to know of it; ``card.mean`` and ``card.std`` normalise the clips, K is ``len(card.classes)``.

    Attributes:
        network: as given.
        card: as given.
        mean: per-channel mean ``(3, 1, 1, 1)``, a buffer that is not saved with the weights.
        std: per-channel standard deviation, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.register_buffer("mean", torch.tensor(card.mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(3, 1, 1, 1), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)``, the mean over the views and crops that ``card.clip`` asks for.

        Args:
            clips: float32 RGB ``(B, 3, T, H, W)`` in [0, 1], several views and crops one after the other; the range
                is not checked here, because looking at values would make every forward wait for the GPU
                (``contracts.check_clips`` does).

        Raises:
            ClipError: the shape is another.
        """
        if clips.ndim != 5 or clips.shape[1] != 3:
            raise ClipError(f"clips are {tuple(clips.shape)}; robustvid wants (B, 3, T, H, W)")
        views = self.card.clip.views * self.card.clip.crops
        if views > 1:
            clips = torch.cat(clips.chunk(views, dim=2))
        logits: Tensor = self.network((clips - self.mean) / self.std)
        return logits if views == 1 else logits.unflatten(0, (views, -1)).mean(0)


def new_classifier(card: ModelCard) -> VideoClassifier:
    """Return the classifier that ``card`` describes, untrained, with weights from torch's random state.

    Raises:
        UnknownNameError: there is no architecture ``card.arch``.
        ModelError: the architecture has no such options.
    """
    builder = ARCHITECTURES.load(card.arch)
    return VideoClassifier(call_builder(card.arch, builder, len(card.classes), **card.options), card)


def last_layer(model: VideoClassifier) -> nn.Module:
    """Return the layer that gives the logits: the last one, linear or a convolution, with as many outputs as classes.

    Raises:
        ModelError: there is none.
    """
    classes = len(model.card.classes)
    for layer in reversed(list(model.network.modules())):
        if isinstance(layer, nn.Linear) and layer.out_features == classes:
            return layer
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.out_channels == classes:
            return layer
    raise ModelError(f"{model.card.name} has no linear or convolutional layer with {classes} outputs")


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of all parameters and saved buffers: names, dtypes, shapes and bytes, in order of name."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, Tensor):  # the extra state of some modules
            digest.update(f"{name}\0{value!r}\0".encode())
            continue
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
