"""Export: the same model as a graph for OpenVINO or ONNX Runtime, in float32, bf16 or int8."""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustvid.contracts import VideoDataset
from robustvid.data.batches import evaluation_batches
from robustvid.errors import MissingPackageError, ModelError
from robustvid.models.cards import write_card
from robustvid.models.checkpoint import CARD_FILE, check_savable, save_checkpoint
from robustvid.models.classifier import VideoClassifier, weights_digest
from robustvid.models.deployed import GRAPH_FILES, PRECISIONS, TWIN, Deployed, twin_of, without_telemetry

# Largest difference of logits, as a share of the spread of each clip's, that an export may show.
TOLERANCE = {"float32": 1e-3, "bf16": 0.05, "int8": 0.1}
AGREEMENT = 0.99  # of the largest logits


class Parity(NamedTuple):
    """How an exported model compares with the model that it was made from.

    Attributes:
        n: clips compared.
        agree: on how many of them the largest logit is the same.
        largest: largest difference of logits, as a share of the spread of the clip's logits.
        median: median over clips of the largest difference, likewise.
    """

    n: int
    agree: int
    largest: float
    median: float


def export(
    model: VideoClassifier,
    folder: str | Path,
    *,
    runtime: str = "openvino",
    precision: str = "float32",
    calibration: Tensor | None = None,
    name: str | None = None,
) -> VideoClassifier:
    """Write a model as a graph with its float twin, and return it as the deployed classifier.

    In int8, weights have one scale for each channel and activations one for each tensor, found on the calibration
    clips (static quantisation, by NNCF); biases are corrected for the mean of the rounding error.

    Args:
        model: a classifier whose architecture can be saved, looking at one view; stays as it is.
        folder: a new or empty folder; ``load_model`` takes it.
        runtime: ``"openvino"`` or ``"onnx"``.
        precision: ``"float32"``, ``"int8"``, or ``"bf16"`` for OpenVINO on CPUs that have it.
        calibration: clips ``(N, 3, T, H, W)`` in [0, 1] of the training split, for int8.
        name: what the card calls it; ``<model>-<precision>`` when None.

    Raises:
        ModelError: the model cannot be exported in this way.
        MissingPackageError: a package of the extra ``deploy`` is not installed.
    """
    _check(model, runtime, precision, calibration)
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise ModelError(f"{folder} is not empty; export into a new folder")
    source = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    make = {"openvino": _openvino_files, "onnx": _onnx_files}[runtime]
    without_telemetry()
    try:
        with _quiet():
            files = make(source, calibration if precision == "int8" else None)
    except ImportError as error:
        raise MissingPackageError(
            f"export needs a package that is missing ({error}): pip install 'robustvid[deploy]'"
        ) from None
    except Exception as error:  # whatever a converter says of a network that it cannot follow
        raise ModelError(f"{model.card.name} cannot be exported to {runtime}: {error}") from error
    source.card = save_checkpoint(source, folder / TWIN)
    step: dict[str, Any] = {"step": "export", "runtime": runtime, "precision": precision}
    if precision == "int8" and calibration is not None:
        step["calibration"] = len(calibration)
    card = replace(
        source.card,
        name=name or f"{model.card.name}-{precision}",
        arch=runtime,
        options={"precision": precision},
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        lineage=(*source.card.lineage, step),
    )
    deployed = VideoClassifier(Deployed(runtime, precision, files, source), card).eval()
    deployed.card = replace(card, weights_digest=weights_digest(deployed))
    for file, content in files.items():
        (folder / file).write_bytes(content)
    (folder / CARD_FILE).write_text(write_card(deployed.card), encoding="utf-8")
    return deployed


def parity(deployed: VideoClassifier, data: VideoDataset, limit: int | None = None) -> Parity:
    """Compare an exported model with its twin on clips of a test split.

    Raises:
        ModelError: the model is not an exported one.
    """
    twin = twin_of(deployed)
    if twin is None:
        raise ModelError(f"{deployed.card.name} is no exported model")
    agree, errors = 0, []
    with torch.no_grad():
        for clips, _ in evaluation_batches(data, deployed.card.clip, limit):
            ours, theirs = deployed(clips), twin(clips)
            agree += int((ours.argmax(1) == theirs.argmax(1)).sum())
            errors.append((ours - theirs).abs().amax(1) / (theirs.amax(1) - theirs.amin(1)).clamp_min(1e-12))
    error = torch.cat(errors)
    return Parity(len(error), agree, float(error.max()), float(error.median()))


def check_parity(found: Parity, precision: str) -> None:
    """Refuse an export that answers otherwise than the model it was made from.

    Raises:
        ModelError: fewer than 99 % of the largest logits agree, or logits differ by more than ``TOLERANCE``.
    """
    if found.agree < AGREEMENT * found.n or not found.largest <= TOLERANCE[precision]:
        raise ModelError(
            f"the exported graph agrees with torch on {found.agree} of {found.n} clips, logits differ by up to "
            f"{found.largest:.2g} of their spread; wanted {AGREEMENT:.0%} and {TOLERANCE[precision]:g}"
        )


def _check(model: VideoClassifier, runtime: str, precision: str, calibration: Tensor | None) -> None:
    if runtime not in GRAPH_FILES or precision not in PRECISIONS:
        raise ModelError(
            f"runtime={runtime!r}, precision={precision!r}: wanted one of {', '.join(GRAPH_FILES)} "
            f"and one of {', '.join(PRECISIONS)}"
        )
    if runtime == "onnx" and precision == "bf16":
        raise ModelError("ONNX Runtime has no bf16 convolutions on CPUs: export to openvino, or in float32 or int8")
    if precision == "int8" and calibration is None:
        raise ModelError("int8 needs calibration clips, of the training split")
    if twin_of(model) is not None:
        raise ModelError(f"{model.card.name} is exported already; export its folder twin/")
    check_savable(model)
    if model.card.clip.views * model.card.clip.crops > 1:
        raise ModelError(f"{model.card.name} averages over views or crops: export it with one, and load it with many")


def _openvino_files(model: VideoClassifier, calibration: Tensor | None) -> dict[str, bytes]:
    import openvino

    clip = _example(model)
    graph = openvino.convert_model(model, example_input=clip, input=[(-1, *clip.shape[1:])])
    if calibration is not None:
        graph = _quantised(graph, calibration, lambda one: one.numpy())
    with TemporaryDirectory() as folder:
        openvino.save_model(graph, Path(folder, "model.xml"), compress_to_fp16=False)
        return {name: Path(folder, name).read_bytes() for name in GRAPH_FILES["openvino"]}


def _onnx_files(model: VideoClassifier, calibration: Tensor | None) -> dict[str, bytes]:
    import onnx

    program = torch.onnx.export(
        model,
        (_example(model),),
        dynamo=True,
        input_names=["clips"],
        output_names=["logits"],
        dynamic_shapes={"clips": {0: torch.export.Dim("batch")}},
        external_data=False,
        verbose=False,
    )
    assert program is not None  # what dynamo=True returns
    graph = program.model_proto
    if calibration is not None:
        graph = _quantised(graph, calibration, lambda one: {"clips": one.numpy()})
    onnx.checker.check_model(graph)
    return {"model.onnx": graph.SerializeToString()}


def _quantised(graph: Any, calibration: Tensor, feed: Callable[[Tensor], Any]) -> Any:
    import nncf

    batches = list(calibration.cpu().float().split(1))
    # Means over clips of the largest activations, the default, cut off what the loudest clips need.
    widest = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    return nncf.quantize(
        graph,
        nncf.Dataset(batches, feed),
        subset_size=len(batches),
        fast_bias_correction=False,
        advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=widest),
    )


def _example(model: VideoClassifier) -> Tensor:
    clip = model.card.clip
    return torch.full((2, 3, clip.frames, *clip.size), 0.5)  # two: one would be taken for a constant


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converters' notes on their own workings off the terminal; what goes wrong is raised."""
    names = ("nncf", "openvino", "torch.onnx", "torch.utils.cpp_extension", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
