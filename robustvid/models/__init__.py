"""The model wing: video classifiers by name, by folder, or by your own function.

Importing this package loads no torch; it is loaded with the first model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustvid.errors import ModelError, UnknownNameError
from robustvid.models.architectures import ARCHITECTURES, call_builder
from robustvid.registry import did_you_mean, load_object, split_params

if TYPE_CHECKING:
    from robustvid.models.classifier import VideoClassifier

__all__ = ["ARCHITECTURES", "WEIGHTS", "load_model", "zoo"]

WEIGHTS = Path(__file__).parent / "weights"
_FOREIGN = {
    "torchvision": "robustvid.models.torchvision:load_torchvision",
    "hf": "robustvid.models.huggingface:load_huggingface",
}


def zoo() -> list[str]:
    """Return the names of the models whose trained weights are part of this installation, sorted."""
    return sorted(card.parent.name for card in WEIGHTS.glob("*/card.json"))


def load_model(name_or_path: str | Path, *, views: int = 1, crops: int = 1, **options: Any) -> VideoClassifier:
    """Load a video classifier.

    Args:
        name_or_path: a zoo name (``"conv3d"``; it wins over a folder of that name, which is then ``"./conv3d"``), a
            checkpoint folder, ``"torchvision:r3d_18"``, ``"hf:FOLDER"`` or ``"hf:HUB/NAME"``, or your own function as
            ``"my_package.module:build"`` or ``"file.py:build"``, which must return a ``VideoClassifier``. Options may
            be part of it: ``"torchvision:r3d_18:weights=mine.pt,num_classes=101"``.
        views: in how many places of the video it looks; logits are averaged, and each view is perturbed on its own.
        crops: 1, or 3 along the longer side, likewise.
        options: those of :func:`~robustvid.models.torchvision.load_torchvision`, of
            :func:`~robustvid.models.huggingface.load_huggingface`, or of your own function. The zoo and checkpoints
            take ``classes``, a file of names, or ``num_classes``, for another head that is not trained yet.

    Returns:
        The classifier in evaluation mode: float32 clips ``(B, 3, T, H, W)`` in [0, 1] to logits ``(B, K)``.

    Raises:
        UnknownNameError: there is no such model; the message lists what there is.
        ModelError: the checkpoint, or what your function returned, cannot be used, or an option means nothing.
    """
    name, given = (str(name_or_path), {}) if Path(name_or_path).is_dir() else split_params(str(name_or_path))
    if twice := (given.keys() & (options | {"views": 0, "crops": 0}).keys()) - {"views", "crops"}:
        raise ModelError(f"{name_or_path}: {', '.join(sorted(twice))} given twice")
    views, crops = given.pop("views", views), given.pop("crops", crops)
    if type(views) is not int or views < 1 or crops not in {1, 3}:
        raise ModelError(f"views={views}, crops={crops}: wanted one or more views, and 1 or 3 crops")
    model = _load(name, options | given)
    if views * crops > 1:
        model.card = replace(model.card, clip=replace(model.card.clip, views=views, crops=crops))
    return model


def _load(name: str, options: dict[str, Any]) -> VideoClassifier:
    folder = WEIGHTS / name if name in zoo() else Path(name)
    if folder.is_dir():
        return _load_folder(folder, name, options)
    kind, _, rest = name.partition(":")
    if kind in _FOREIGN:
        model: VideoClassifier = call_builder(name, load_object(_FOREIGN[kind]), rest, **options)
        return model
    if ":" in name:
        return _load_own(name, options)
    raise UnknownNameError(
        f"no model named {name!r}, and no such folder.{did_you_mean(name, zoo())} The zoo has: {', '.join(zoo())}."
        " A checkpoint folder, 'torchvision:r3d_18', 'hf:FOLDER' or 'my_package.module:build' will do as well."
    )


def _load_folder(folder: Path, name: str, options: dict[str, Any]) -> VideoClassifier:
    from robustvid.models.checkpoint import load_checkpoint
    from robustvid.models.deployed import TWIN, load_deployed
    from robustvid.models.foreign import other_head

    graph = (folder / TWIN).is_dir()
    if unknown := options.keys() - (set() if graph else {"classes", "num_classes"}):
        kind, known = ("an exported graph", "no options") if graph else ("a checkpoint", "classes and num_classes")
        raise ModelError(f"{name} is {kind} and takes {known}, but got {', '.join(sorted(unknown))}")
    return load_deployed(folder) if graph else other_head(load_checkpoint(folder), **options)


def _load_own(name: str, options: dict[str, Any]) -> VideoClassifier:
    from robustvid.models.classifier import VideoClassifier

    model = call_builder(name, load_object(name), **options)
    if not isinstance(model, VideoClassifier):
        raise ModelError(
            f"{name} returned {type(model).__name__}; robustvid wants a VideoClassifier:"
            " return VideoClassifier(network, ModelCard(...))"
        )
    return model.eval()
