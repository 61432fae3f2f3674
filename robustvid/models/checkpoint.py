"""A trained classifier on disk: ``weights.safetensors`` and ``card.json`` in one folder, neither of which runs code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from robustvid.contracts import ModelCard
from robustvid.errors import ModelError, UnknownNameError
from robustvid.models.architectures import ARCHITECTURES
from robustvid.models.cards import parse_card, write_card
from robustvid.models.classifier import VideoClassifier, new_classifier, weights_digest

WEIGHTS_FILE, CARD_FILE = "weights.safetensors", "card.json"


def save_checkpoint(model: VideoClassifier, folder: str | Path) -> ModelCard:
    """Write a classifier into ``folder``, over what is there of a former one.

    Each file is written beside its place and renamed; a crash in between leaves weights that do not match the card,
    which ``load_checkpoint`` refuses.

    Args:
        model: its architecture must be one of ``ARCHITECTURES``, so that it can be loaded again.
        folder: made if it does not exist.

    Returns:
        The card as written: the model's own with the digest of the weights.

    Raises:
        ModelError: the card cannot be written as JSON or names no known architecture.
    """
    check_savable(model)
    folder = Path(folder)
    card = replace(model.card, weights_digest=weights_digest(model))
    text = write_card(card)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as unfinished:
        Path(unfinished, WEIGHTS_FILE).write_bytes(save(_portable(model)))
        Path(unfinished, CARD_FILE).write_text(text, encoding="utf-8")
        for name in (WEIGHTS_FILE, CARD_FILE):
            Path(unfinished, name).replace(folder / name)
    return card


def check_savable(model: VideoClassifier) -> None:
    """Refuse a model that a checkpoint could not be loaded into again.

    Raises:
        ModelError: its architecture is not one of ``ARCHITECTURES``.
    """
    if model.card.arch not in ARCHITECTURES.targets:
        raise ModelError(
            f"a checkpoint of architecture {model.card.arch!r} could not be loaded again;"
            f" robustvid saves {', '.join(ARCHITECTURES.names())}"
        )


def load_checkpoint(folder: str | Path) -> VideoClassifier:
    """Read a classifier from ``folder`` and make sure that it is the one that was saved.

    Returns:
        The classifier in evaluation mode, on the CPU.

    Raises:
        ModelError: a file is missing or malformed, the architecture is unknown, or the weights are not those that
            the card tells of.
    """
    folder = Path(folder)
    card = parse_card(read_file(folder / CARD_FILE).decode("utf-8", "replace"), folder / CARD_FILE)
    model = _untrained(card, folder / CARD_FILE)
    weights = _load_weights(folder / WEIGHTS_FILE)
    _check_keys(model.state_dict(), weights, folder / WEIGHTS_FILE)
    model.load_state_dict(weights)
    digest = weights_digest(model)
    if digest != card.weights_digest:
        raise ModelError(
            f"{folder / WEIGHTS_FILE} is not what its card tells of: the weights have SHA-256 {digest},"
            f" the card says {card.weights_digest}; take both files from one source"
        )
    return model.eval()


def _portable(model: VideoClassifier) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def read_file(file: Path) -> bytes:
    """Return what a file of a checkpoint holds.

    Raises:
        ModelError: there is no such folder, or no such file in it.
    """
    if not file.parent.is_dir():
        raise ModelError(f"no folder {file.parent}")
    if not file.is_file():
        raise ModelError(f"{file.parent} is no checkpoint: it has no {file.name}")
    return file.read_bytes()


def _untrained(card: ModelCard, file: Path) -> VideoClassifier:
    try:
        with torch.random.fork_rng([]):  # the weights drawn here are overwritten
            return new_classifier(card)
    except (UnknownNameError, ModelError) as error:
        raise ModelError(f"{file}: {error}") from None
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        raise ModelError(f"{file}: architecture {card.arch} refuses options {dict(card.options)}: {error}") from error


def _load_weights(file: Path) -> dict[str, Tensor]:
    read_file(file)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ModelError(f"{file} is not a whole safetensors file: {error}") from None


def _check_keys(wanted: dict[str, Tensor], found: dict[str, Tensor], file: Path) -> None:
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{name} is unexpected" for name in sorted(found.keys() - wanted.keys())]
    faults += [
        f"{name} is {_describe(found[name])}, wanted {_describe(wanted[name])}"
        for name in sorted(wanted.keys() & found.keys())
        if _describe(found[name]) != _describe(wanted[name])
    ]
    if faults:
        raise ModelError(f"{file} does not fit its card: {'; '.join(faults)}")


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"
