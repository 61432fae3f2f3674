"""Whether a model, a dataset and a surrogate can be measured together."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import nn

from robustvid.contracts import VideoDataset
from robustvid.errors import ModelError
from robustvid.models.classifier import VideoClassifier

log = logging.getLogger("robustvid")


def check_models(
    model: VideoClassifier,
    data: VideoDataset,
    surrogate: VideoClassifier | None,
    training: VideoDataset | None = None,
) -> None:
    """Refuse models that cannot be measured on this data, or one through the other.

    Raises:
        ModelError: a model has no card, or they disagree on the classes or the clips.
    """
    for given in (model,) if surrogate is None else (model, surrogate):
        if not isinstance(given, nn.Module) or not hasattr(given, "card"):
            raise ModelError(
                f"{type(given).__name__} has no card: wrap the network in robustvid.VideoClassifier(network, card)"
            )
    _check_classes(model, "data", data.name, list(data.classes))
    if training is not None:
        _check_classes(model, "training data", training.name, list(training.classes))
    if surrogate is not None:
        check_partner(model, "surrogate", surrogate, "a clip attacked for one has to fit the other")


def check_partner(model: VideoClassifier, noun: str, other: VideoClassifier, why: str) -> None:
    """Refuse two models of which one cannot answer for the other's clips.

    Args:
        model: what is measured or trained.
        noun: what the other one is to it, in messages.
        other: the other one.
        why: the reason why clips have to have one shape, for the message.

    Raises:
        ModelError: they disagree on the classes or the shape of a clip.
    """
    _check_classes(model, noun, other.card.name, list(other.card.classes))
    ours, theirs = (f"{c.length} frames of {c.size[0]}×{c.size[1]}" for c in (model.card.clip, other.card.clip))
    if ours != theirs:
        raise ModelError(f"model {model.card.name} takes {ours} pixels, {noun} {other.card.name} {theirs}: {why}")


def _check_classes(model: VideoClassifier, noun: str, name: str, theirs: Sequence[str]) -> None:
    ours = list(model.card.classes)
    if len(ours) == len(theirs) and ours != theirs and (unnamed(ours) or unnamed(theirs)):
        which = f"model {model.card.name}" if unnamed(ours) else f"{noun} {name}"
        log.warning("%s does not name its classes: they are taken to be in the same order", which)
    elif ours != theirs:
        where = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
        detail = f"{len(ours)} and {len(theirs)} classes"
        if where is not None:
            detail += f"; class {where} is {ours[where]!r} for the model and {theirs[where]!r} for the {noun}"
        raise ModelError(f"model {model.card.name} and {noun} {name} disagree on the classes: {detail}")


def unnamed(classes: Sequence[str]) -> bool:
    """Return whether these are numbers, "0" and on, in place of names."""
    return list(classes) == [str(number) for number in range(len(classes))]
