"""What torchvision's and Hugging Face's classifiers have in common: another clip, other classes, other weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robustvid.classes import read_classes
from robustvid.contracts import ClipSpec
from robustvid.errors import ModelError
from robustvid.models.classifier import VideoClassifier, new_classifier
from robustvid.registry import did_you_mean

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "network.", "model.")
_CLIP_OPTIONS = ("frames", "stride", "size", "short_side", "sampling")
_NAMED = 20  # faults of a checkpoint that are named
log = logging.getLogger("robustvid")


def other_clip(clip: ClipSpec, given: Mapping[str, Any]) -> ClipSpec:
    """Return ``clip`` with what is given in place of its own.

    Args:
        clip: the model's own.
        given: any of ``frames``, ``stride``, ``size``, which is both height and width, ``short_side``, ``sampling``.

    Raises:
        ModelError: there is no such option, or its value means nothing.
    """
    for name, value in given.items():
        if name not in _CLIP_OPTIONS:
            raise ModelError(
                f"no option {name!r}.{did_you_mean(name, _CLIP_OPTIONS)} There are weights, classes, num_classes, "
                f"{', '.join(_CLIP_OPTIONS)}, views and crops"
            )
        good = value in ("dense", "uniform") if name == "sampling" else type(value) is int and value >= 1
        if not good and (name, value) != ("short_side", 0):
            raise ModelError(f"{name}={value}: wanted {'dense or uniform' if name == 'sampling' else 'a whole number'}")
    changes: dict[str, Any] = dict(given)
    if "size" in given:
        changes = {"short_side": 0} | changes | {"size": (given["size"], given["size"])}
    return replace(clip, **changes)


def other_classes(
    classes: str | Path | None, num_classes: int | None, usual: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """Return the class names of another head, or ``usual`` where none is asked for.

    Args:
        classes: a file with one name a line.
        num_classes: how many, where they have no names; they are then called by their numbers.
        usual: the names that come with the model.

    Raises:
        ModelError: both are given and differ, or there are fewer than two classes.
    """
    if classes is not None:
        names = read_classes(classes)
        if num_classes not in {None, len(names)}:
            raise ModelError(f"num_classes={num_classes}, but {classes} lists {len(names)}")
        return names
    if num_classes is None:
        return usual
    if type(num_classes) is not int or num_classes < 2:
        raise ModelError(f"num_classes={num_classes}: wanted at least 2")
    return tuple(map(str, range(num_classes)))


def other_head(
    model: VideoClassifier, classes: str | Path | None = None, num_classes: int | None = None
) -> VideoClassifier:
    """Return the classifier with a head for other classes; untrained, where their number differs.

    Args:
        model: of an architecture of robustvid's own.
        classes: a file with one name a line.
        num_classes: how many, where they have no names; as it is where neither is given.

    Raises:
        ModelError: as :func:`other_classes`; or more than the head depends on the number of classes.
    """
    names = other_classes(classes, num_classes, model.card.classes)
    if names is None or names == model.card.classes:
        return model
    changed = new_classifier(replace(model.card, classes=names, weights_digest=""))
    load_weights(changed, model.state_dict(), model.card.name, new_head=True)
    return changed.eval()


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, safetensors or what ``torch.save`` wrote, without running code from it.

    Wrappers such as ``{"state_dict": ...}`` and prefixes such as ``module.`` are taken off.

    Raises:
        ModelError: there is no such file, or it holds something else.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise ModelError(f"there is no file of weights {file}")
    try:
        found: Any = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  a damaged pickle raises anything; one that runs code, UnpicklingError
        raise ModelError(
            f"{file} holds no weights that can be read without running code from it: {_first_line(error)}"
        ) from None
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{file} holds {type(found).__name__}; wanted the tensors of a state_dict by name")
    weights = {str(name): value for name, value in found.items()}
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str, *, new_head: bool = False) -> None:
    """Put weights into a network, all or none.

    Args:
        network: the prefix of its names may be missing in ``weights``.
        weights: by name.
        source: where they are from, for messages.
        new_head: tensors whose first axis alone differs, the number of classes, are left untrained.

    Raises:
        ModelError: a tensor is missing, unknown or of another shape; all are named.
    """
    own = network.state_dict()
    weights = dict(weights)
    if own and all(name.startswith("model.") for name in own):
        weights = {f"model.{name.removeprefix('model.')}": value for name, value in weights.items()}
    faults = [f"{name} is missing" for name in own if name not in weights]
    faults += [f"{name} is unexpected" for name in weights if name not in own]
    other = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if new_head and not faults and all(own[name].shape[1:] == weights[name].shape[1:] for name in other):
        log.warning("%s has another number of classes: %s are not trained", source, " and ".join(other))
        weights |= {name: own[name] for name in other}
        other = []
    faults += [f"{name} is {tuple(weights[name].shape)}, wanted {tuple(own[name].shape)}" for name in other]
    if faults:
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise ModelError(f"{source} does not fit the model: {'; '.join(faults[:_NAMED])}{more}")
    network.load_state_dict(weights)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
