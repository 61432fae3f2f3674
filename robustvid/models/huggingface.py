"""Video classifiers of Hugging Face transformers: VideoMAE, TimeSformer, ViViT and V-JEPA 2."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import Tensor, nn

from robustvid.contracts import ClipSpec, ModelCard
from robustvid.errors import MissingPackageError, ModelError
from robustvid.models.classifier import VideoClassifier
from robustvid.models.foreign import load_weights, other_classes, other_clip, read_weights

_PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # transformers reads the latter without running code from it
log = logging.getLogger("robustvid")


class _Family(NamedTuple):
    """How a family names its input and its clip; the stride is that of its papers' Kinetics models."""

    pixels: str
    frames: str
    size: str
    stride: int


FAMILIES: Mapping[str, _Family] = MappingProxyType(
    {
        "videomae": _Family("pixel_values", "num_frames", "image_size", 4),
        "timesformer": _Family("pixel_values", "num_frames", "image_size", 32),
        "vivit": _Family("pixel_values", "num_frames", "image_size", 2),
        "vjepa2": _Family("pixel_values_videos", "frames_per_clip", "crop_size", 4),
    }
)


class Transformer(nn.Module):
    """A transformer that takes clips ``(B, 3, T, H, W)`` and returns logits.

    Args:
        model: transformers' own; takes ``(B, T, 3, H, W)`` and returns an object with ``logits``.
        pixels: the name of its input.
    """

    def __init__(self, model: Any, pixels: str) -> None:
        super().__init__()
        self.model, self.pixels = model, pixels

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)``."""
        logits: Tensor = self.model(**{self.pixels: clips.transpose(1, 2)}).logits
        return logits


def load_huggingface(
    source: str,
    *,
    download: bool = False,
    weights: str | Path | None = None,
    classes: str | Path | None = None,
    num_classes: int | None = None,
    **clip: Any,
) -> VideoClassifier:
    """Return a video classifier of transformers.

    Mean, standard deviation and size are those of the processor's configuration; the processor itself is not used,
    because gradients have to pass.

    Args:
        source: a folder that ``save_pretrained`` made, or the name of a model on the hub, of which only what an earlier
            download left is read.
        download: fetch the model from the hub.
        weights: another file of weights, which has to fit as a whole; ``"random"`` for none.
        classes: a file of class names for another head.
        num_classes: size of another head whose classes have no names; the head is then untrained, unless ``weights``
            are given.
        clip: ``frames``, ``stride``, ``size``, ``short_side`` or ``sampling`` in place of the model's own.

    Raises:
        MissingPackageError: transformers is not installed.
        ModelError: there is no such model on this machine, it is of another family, or its weights do not fit.
    """
    folder = _find(source, download=download)
    config = _read_json(folder / "config.json")
    family = _family(config.get("model_type"), source)
    processor = next((_read_json(folder / name) for name in _PROCESSORS if (folder / name).is_file()), None)
    if processor is None:
        raise ModelError(f"{source} has no {_PROCESSORS[-1]}, which tells how its clips are normalised")
    size, frames = (_int(config, name, source) for name in (family.size, family.frames))
    spec = other_clip(ClipSpec(frames, family.stride, (size, size), short_side=_short_side(processor)), clip)
    own = _labels(config)
    names = other_classes(classes, num_classes, own)
    if names is None:
        raise ModelError(f"{source} does not name its classes (id2label); give classes=FILE or num_classes=K")
    kept = {key: value for key, value in config.items() if key not in {"id2label", "label2id", "num_labels"}}
    kept |= {family.frames: spec.frames, family.size: spec.size[0]}
    network = build(len(names), config=kept)
    if weights is None:
        _load_own(network, folder, new_head=names != own)
    elif weights != "random":
        load_weights(network, read_weights(weights), str(weights))
    mean, std = _normalisation(processor, source)
    card = ModelCard(Path(source).name, "huggingface", names, spec, mean, std, {"config": kept})
    return VideoClassifier(network, card).eval()


def build(classes: int, config: Mapping[str, Any]) -> Transformer:
    """Return an untrained network.

    Args:
        classes: number of logits.
        config: what ``config.json`` says of the model, ``model_type`` above all.

    Raises:
        MissingPackageError: transformers is not installed.
        ModelError: the family is not one of ``FAMILIES``, or the configuration is refused.
    """
    family = _family(config.get("model_type"), "the configuration")
    transformers = _transformers()
    try:
        settings = transformers.AutoConfig.for_model(**(dict(config) | {"num_labels": classes}))
        return Transformer(transformers.AutoModelForVideoClassification.from_config(settings), family.pixels)
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise ModelError(f"transformers refuses this {config.get('model_type')} configuration: {error}") from None


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingPackageError(
            f"Hugging Face models need transformers (pip install transformers): {error}"
        ) from None
    return transformers


def _find(source: str, *, download: bool) -> Path:
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    _transformers()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["config.json", *_WEIGHTS, *_PROCESSORS]
    try:
        return Path(snapshot_download(source, allow_patterns=wanted, local_files_only=not download))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"no folder {source}, and no such model in the hub's cache on this machine; "
            f"'hf:{source}:download=true' fetches it ({told})"
        ) from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file.parent} is no model of transformers: it has no {file.name}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds {type(found).__name__}; wanted an object")
    return found


def _family(model_type: Any, source: str) -> _Family:
    if model_type not in FAMILIES:
        raise ModelError(f"{source} is of type {model_type!r}; robustvid knows {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def _load_own(network: Transformer, folder: Path, *, new_head: bool) -> None:
    """Put the folder's weights into the network, through transformers, which knows the names of older versions."""
    transformers = _transformers()
    try:
        with _quiet(transformers):
            network.model, report = transformers.AutoModelForVideoClassification.from_pretrained(
                folder,
                config=network.model.config,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the weights in {folder} cannot be read: {next(iter(str(error).splitlines()), '')}") from None
    other = {name: (tuple(theirs), tuple(ours)) for name, theirs, ours in report["mismatched_keys"]}
    if new_head and all(theirs[1:] == ours[1:] for theirs, ours in other.values()):
        log.warning("%s has another number of classes: %s are not trained", folder, " and ".join(sorted(other)))
        other = {}
    faults = [f"{name} is missing" for name in sorted(report["missing_keys"])]
    faults += [f"{name} is unexpected" for name in sorted(report["unexpected_keys"])]
    faults += [f"{name} is {theirs}, wanted {ours}" for name, (theirs, ours) in sorted(other.items())]
    if faults:
        raise ModelError(f"the weights in {folder} do not fit the model: {'; '.join(faults)}")


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    logging = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _int(config: Mapping[str, Any], name: str, source: str) -> int:
    value = config.get(name)
    if isinstance(value, list) and value and value.count(value[0]) == len(value):
        value = value[0]
    if type(value) is not int or value < 1:
        raise ModelError(f"{source}: {name} is {value!r} in config.json; wanted a positive whole number")
    return value


def _labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names in the order of the logits; None where they are missing or only placeholders."""
    table = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})  # what transformers takes it to be
    if not isinstance(table, dict) or sorted(map(str, table)) != sorted(map(str, range(len(table)))) or len(table) < 2:
        return None
    names = tuple(str(table[number]) for number in sorted(table, key=int))
    placeholders = tuple(f"LABEL_{number}" for number in range(len(names)))
    if names == placeholders:
        return tuple(map(str, range(len(names))))
    return names if len(set(names)) == len(names) else None


def _short_side(processor: Mapping[str, Any]) -> int:
    """Return to what the shorter side is scaled before the crop, 0 where the processor does not say."""
    size = processor.get("size")
    return int(size["shortest_edge"]) if isinstance(size, dict) and "shortest_edge" in size else 0


def _normalisation(
    processor: Mapping[str, Any], source: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and std for pixels in [0, 1] that do what the processor does to pixels in [0, 255].

    ViViT's processor scales by 1/127.5 and subtracts 1 before it normalises, if its configuration says ``offset``.
    """
    try:
        factor = 255 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
        shift = 1.0 if processor.get("offset", False) and processor.get("do_rescale", True) else 0.0
        normalise = processor.get("do_normalize", True)
        means, stds = (processor["image_mean"], processor["image_std"]) if normalise else ([0.0] * 3, [1.0] * 3)
        red, green, blue = ((float(mean) + shift) / factor for mean in means)
        spread = [float(std) / factor for std in stds]
        if len(spread) != 3 or min(spread) <= 0:
            raise ValueError(f"image_std is {stds}")
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"the processor of {source} does not say how clips are normalised: {error!r}") from None
    return (red, green, blue), (spread[0], spread[1], spread[2])
