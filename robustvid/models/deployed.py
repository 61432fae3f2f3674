"""Exported models as classifiers: the graph that is deployed answers, its float twin lends it a gradient."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustvid.errors import MissingPackageError, ModelError
from robustvid.models.cards import parse_card
from robustvid.models.checkpoint import CARD_FILE, load_checkpoint, read_file
from robustvid.models.classifier import VideoClassifier, weights_digest

TWIN = "twin"  # folder of the float model, beside the graph
GRAPH_FILES = {"openvino": ("model.xml", "model.bin"), "onnx": ("model.onnx",)}
PRECISIONS = ("float32", "bf16", "int8")

Run = Callable[[Tensor], Tensor]


class Deployed(nn.Module):
    """An exported graph, run by its own runtime on the CPU.

    Forwards without a gradient run the graph alone. Where a gradient is wanted, the logits are still the graph's, and
    the gradient is that of the float twin at the same clip: straight through whatever the graph rounds, as BPDA does
    (Athalye et al., "Obfuscated Gradients Give a False Sense of Security", arXiv:1802.00420).

    Args:
        runtime: ``"openvino"`` or ``"onnx"``.
        precision: what the graph computes in, ``"float32"``, ``"bf16"`` or ``"int8"``.
        files: names and contents of the graph's files.
        twin: the float model that was exported.

    Raises:
        MissingPackageError: the runtime is not installed.
        ModelError: it refuses the graph, or this CPU knows no bf16.
    """

    def __init__(self, runtime: str, precision: str, files: Mapping[str, bytes], twin: VideoClassifier) -> None:
        super().__init__()
        self.graph = _Graph(runtime, precision, files)
        self.twin = twin

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)`` of clips ``(B, 3, T, H, W)`` in [0, 1]: normalisation is part of the graph."""
        logits = self.graph(clips.detach()).to(clips.device)
        if not (torch.is_grad_enabled() and clips.requires_grad):
            return logits
        answered: Tensor = _StraightThrough.apply(self.twin(clips), logits)
        return answered

    def get_extra_state(self) -> str:
        """Return the digest of the graph, so that it is part of the model's."""
        return self.graph.digest

    def set_extra_state(self, state: str) -> None:
        """Refuse the state of another graph.

        Raises:
            ModelError: it is another.
        """
        if state != self.graph.digest:
            raise ModelError(f"this is the state of graph {state}, not of {self.graph.digest}")


class _Graph:
    """A graph in its runtime, compiled anew for another number of threads. Copies share it: it never changes."""

    def __init__(self, runtime: str, precision: str, files: Mapping[str, bytes]) -> None:
        self.runtime, self.precision, self.files = runtime, precision, dict(files)
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        self.digest = digest.hexdigest()
        self._threads, self._run = torch.get_num_threads(), self._compiled()

    def __call__(self, clips: Tensor) -> Tensor:
        if self._threads != torch.get_num_threads():
            self._threads, self._run = torch.get_num_threads(), self._compiled()
        return self._run(clips.cpu().float().contiguous())

    def __deepcopy__(self, memo: Any) -> _Graph:
        return self

    def _compiled(self) -> Run:
        start = {"openvino": _start_openvino, "onnx": _start_onnx}[self.runtime]
        try:
            return start(self.precision, self.files, torch.get_num_threads())
        except ImportError as error:
            raise MissingPackageError(
                f"a model exported to {self.runtime} needs a package that is missing ({error}): "
                "pip install 'robustvid[deploy]'"
            ) from None
        except ModelError:
            raise
        except Exception as error:  # whatever a runtime says of a graph that it cannot read
            raise ModelError(f"{self.runtime} refuses the graph: {error}") from error


class _StraightThrough(torch.autograd.Function):
    """The second argument, with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, answer: Tensor) -> Tensor:  # noqa: ARG004
        return answer.to(soft, copy=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grads[0], None


def without_telemetry() -> None:
    """Have OpenVINO and NNCF, imported after this, find no openvino_telemetry: else they report every call of theirs.

    Both run without that package. None in the table of modules makes an import fail.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def _start_openvino(precision: str, files: Mapping[str, bytes], threads: int) -> Run:
    without_telemetry()
    import openvino

    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelError("this CPU computes nothing in bf16; export the model in float32 or int8")
    compiled = core.compile_model(
        core.read_model(model=files["model.xml"], weights=files["model.bin"]),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",  # left alone it takes bf16 on AMX
        },
    )
    return lambda clips: torch.from_numpy(compiled(clips.numpy())[0].copy())


def _start_onnx(precision: str, files: Mapping[str, bytes], threads: int) -> Run:  # noqa: ARG001
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(files["model.onnx"], options, providers=["CPUExecutionProvider"])
    (clip,) = session.get_inputs()
    return lambda clips: torch.from_numpy(session.run(None, {clip.name: clips.numpy()})[0])


def load_deployed(folder: str | Path) -> VideoClassifier:
    """Read an exported model and make sure that it is the one that was saved.

    Raises:
        ModelError: a file is missing or malformed, or graph and twin are not those that the card tells of.
        MissingPackageError: its runtime is not installed.
    """
    folder = Path(folder)
    card = parse_card(read_file(folder / CARD_FILE).decode("utf-8", "replace"), folder / CARD_FILE)
    precision = card.options.get("precision")
    if card.arch not in GRAPH_FILES or precision not in PRECISIONS:
        raise ModelError(f"{folder / CARD_FILE}: no runtime is called {card.arch!r}, or no precision {precision!r}")
    twin = load_checkpoint(folder / TWIN)
    if (twin.card.classes, twin.card.clip) != (card.classes, card.clip):
        raise ModelError(f"{folder / TWIN} is not the twin of {folder}: its card tells of other classes or clips")
    files = {name: read_file(folder / name) for name in GRAPH_FILES[card.arch]}
    model = VideoClassifier(Deployed(card.arch, str(precision), files, twin), card).eval()
    digest = weights_digest(model)
    if digest != card.weights_digest:
        raise ModelError(f"{folder}: graph and twin have SHA-256 {digest}, the card says {card.weights_digest}")
    return model


def twin_of(model: VideoClassifier) -> VideoClassifier | None:
    """Return the float model that an exported one was made from; None for a model that computes in torch."""
    return model.network.twin if isinstance(model.network, Deployed) else None
