"""torchvision's video classifiers, with the normalisation and the class names of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from robustvid.contracts import ClipSpec, ModelCard
from robustvid.errors import ModelError
from robustvid.models.classifier import VideoClassifier
from robustvid.models.foreign import load_weights, other_classes, other_clip, read_weights
from robustvid.registry import check_name

# Frames and stride of the published accuracies, at the 30 frames a second of most of Kinetics: the weights' own notes
# give frames a second (15, or 7.5 for MViT) and frames.
PROTOCOLS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "mc3_18": (16, 2),
        "mvit_v1_b": (16, 4),
        "mvit_v2_s": (16, 4),
        "r2plus1d_18": (16, 2),
        "r3d_18": (16, 2),
        "s3d": (128, 2),
        "swin3d_b": (32, 2),
        "swin3d_s": (32, 2),
        "swin3d_t": (32, 2),
    }
)
_FIXED = ("mvit_v1_b", "mvit_v2_s")


def load_torchvision(
    name: str,
    *,
    weights: str | Path | None = None,
    classes: str | Path | None = None,
    num_classes: int | None = None,
    **clip: Any,
) -> VideoClassifier:
    """Return one of torchvision's video classifiers.

    Args:
        name: as torchvision calls it, such as ``"r3d_18"``.
        weights: a file; ``"random"``; ``"download"``; None for the Kinetics-400 weights that an earlier download left.
        classes: a file of class names for another head than that of Kinetics-400.
        num_classes: size of another head whose classes have no names. Kinetics-400 weights under another head leave
            the head untrained; a file of weights has to fit as a whole.
        clip: ``frames``, ``stride``, ``size``, ``short_side`` or ``sampling`` in place of the weights' own protocol.

    Raises:
        UnknownNameError: torchvision has no such video model.
        ModelError: the weights are not there or do not fit, or an option means nothing.
    """
    check_name("torchvision video model", name, sorted(PROTOCOLS))
    from torchvision.models import get_model_weights

    pretrained = get_model_weights(name).DEFAULT
    usual = pretrained.transforms()
    frames, stride = PROTOCOLS[name]
    spec = other_clip(ClipSpec(frames, stride, tuple(usual.crop_size), short_side=min(usual.resize_size)), clip)
    names = other_classes(classes, num_classes, tuple(pretrained.meta["categories"]))
    if names is None:
        raise ModelError(f"torchvision:{name} has no class names")
    if name in _FIXED and (spec.frames, *spec.size) != (frames, *usual.crop_size):
        pixels = "×".join(map(str, usual.crop_size))
        raise ModelError(f"torchvision builds {name} for {frames} frames of {pixels} pixels and no others")
    network = build(len(names), name)
    if weights != "random":
        found, source = _find_weights(name, pretrained, weights)
        load_weights(network, found, source, new_head=weights in {None, "download"})
    card = ModelCard(name, "torchvision", names, spec, tuple(usual.mean), tuple(usual.std), {"model": name})
    return VideoClassifier(network, card).eval()


def build(classes: int, model: str) -> nn.Module:
    """Return an untrained network of torchvision's.

    Args:
        classes: number of logits.
        model: as torchvision calls it.

    Raises:
        UnknownNameError: torchvision has no such video model.
    """
    check_name("torchvision video model", model, sorted(PROTOCOLS))
    from torchvision.models import get_model_builder

    network: nn.Module = get_model_builder(model)(weights=None, num_classes=classes)
    return network


def _find_weights(name: str, pretrained: Any, weights: str | Path | None) -> tuple[dict[str, Tensor], str]:
    if weights not in {None, "download"}:
        return read_weights(str(weights)), str(weights)
    if weights == "download":
        found = torch.hub.load_state_dict_from_url(
            pretrained.url, map_location="cpu", check_hash=True, weights_only=True
        )
        return found, pretrained.url
    file = Path(torch.hub.get_dir(), "checkpoints", pretrained.url.rpartition("/")[2])
    if not file.is_file():
        raise ModelError(
            f"the Kinetics-400 weights of {name} are not on this machine: there is no {file}; 'torchvision:{name}:"
            "weights=download' fetches them, weights=FILE takes yours, and weights=random leaves the model untrained"
        )
    return read_weights(file), str(file)
