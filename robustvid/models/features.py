"""What a classifier makes of a clip before it names it: the input of its last layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustvid.errors import ModelError
from robustvid.models.classifier import VideoClassifier, last_layer
from robustvid.models.deployed import twin_of


def embed(model: VideoClassifier, clips: Tensor) -> Tensor:
    """Return the embeddings of clips: what enters the last layer that has one output for each class.

    Embeddings of several places in time or space, as of models whose last layer is a convolution, are averaged, and so
    are those of views and crops.

    Args:
        model: a classifier that computes in torch; call it as it is, on its device.
        clips: ``(B, 3, T, H, W)`` in [0, 1].

    Returns:
        ``(B, D)``.

    Raises:
        ModelError: no such layer is found, or it sees something else than one embedding for each clip; or the model is
            an exported graph, which shows its logits alone.
    """
    if twin_of(model) is not None:
        raise ModelError(f"{model.card.name} is an exported graph, which shows its logits alone; take its folder twin")
    head = last_layer(model)
    caught: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        with torch.no_grad():
            model(clips)
    finally:
        handle.remove()
    views = model.card.clip.views * model.card.clip.crops
    if len(caught) != 1 or caught[0].shape[0] != views * len(clips):
        raise ModelError(f"the last layer of {model.card.name} is not asked once with one embedding for each clip")
    found: Tensor = caught[0].float()
    if isinstance(head, nn.Linear):
        found = found.flatten(1, -2).mean(1) if found.ndim > 2 else found
    else:
        found = found.flatten(2).mean(2)
    embeddings: Tensor = found.unflatten(0, (views, -1)).mean(0)
    return embeddings
