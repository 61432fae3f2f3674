"""The model wing: video classifiers by name, by folder, or by your own function.

Importing this package loads no torch; it is loaded with the first model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustvid.errors import ModelError, UnknownNameError
from robustvid.models.architectures import ARCHITECTURES, call_builder
from robustvid.registry import did_you_mean, load_object

if TYPE_CHECKING:
    from robustvid.models.classifier import VideoClassifier

__all__ = ["ARCHITECTURES", "WEIGHTS", "load_model", "zoo"]

WEIGHTS = Path(__file__).parent / "weights"


def zoo() -> list[str]:
    """Return the names of the models whose trained weights are part of this installation, sorted."""
    return sorted(card.parent.name for card in WEIGHTS.glob("*/card.json"))


def load_model(name_or_path: str | Path, **options: Any) -> VideoClassifier:
    """Load a video classifier.

    Args:
        name_or_path: a zoo name (``"conv3d"``; it wins over a folder of that name, which is then ``"./conv3d"``),
            a checkpoint folder, or your own function as ``"my_package.module:build"`` or ``"file.py:build"``, which
            must return a ``VideoClassifier``.
        options: keyword arguments of your own function; a zoo name or a folder takes none.

    Returns:
        The classifier in evaluation mode: float32 clips ``(B, 3, T, H, W)`` in [0, 1] to logits ``(B, K)``.

    Raises:
        UnknownNameError: there is no such model; the message lists what there is.
        ModelError: the checkpoint, or what your function returned, cannot be used.
    """
    name = str(name_or_path)
    folder = WEIGHTS / name if name in zoo() else Path(name)
    if folder.is_dir():
        return _load_folder(folder, name, options)
    if ":" in name:
        return _load_own(name, options)
    raise UnknownNameError(
        f"no model named {name!r}, and no such folder.{did_you_mean(name, zoo())} The zoo has: {', '.join(zoo())}."
        " A checkpoint folder or 'my_package.module:build' will do as well."
    )


def _load_folder(folder: Path, name: str, options: dict[str, Any]) -> VideoClassifier:
    from robustvid.models.checkpoint import load_checkpoint

    if options:
        raise ModelError(f"{name} is a checkpoint and takes no options, but got {', '.join(sorted(options))}")
    return load_checkpoint(folder)


def _load_own(name: str, options: dict[str, Any]) -> VideoClassifier:
    from robustvid.models.classifier import VideoClassifier

    model = call_builder(name, load_object(name), **options)
    if not isinstance(model, VideoClassifier):
        raise ModelError(
            f"{name} returned {type(model).__name__}; robustvid wants a VideoClassifier:"
            " return VideoClassifier(network, ModelCard(...))"
        )
    return model.eval()
