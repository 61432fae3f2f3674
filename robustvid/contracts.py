"""What every room of the house agrees on: shapes, ranges, cards, seeds, and how a model is borrowed.

Clips are float32 RGB in [0, 1], shaped ``(B, C, T, H, W)``; labels are int64 ``(B,)``; models return
logits ``(B, K)``. No other layout is public.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from robustvid.budget import Budget
from robustvid.errors import ClipError

MOST = 10**6  # frames, views or pixels along a side: no clip is larger


@dataclass(frozen=True)
class ClipSpec:
    """How a clip is cut from a video.

    Attributes:
        frames: frames that the network sees at once.
        stride: distance between two frames of the clip, in frames of the video; uniform sampling has none.
        size: height and width of the clip in pixels.
        sampling: ``"dense"``, a window of the video, or ``"uniform"``, one frame from each of ``frames`` equal parts.
        short_side: the shorter side of the frames is scaled to this before the crop; 0 scales them until they just
            cover ``size``.
        views: how many places in time a video is looked at; logits are averaged over all views and crops.
        crops: 1, the centre, or 3 along the longer side.
    """

    frames: int
    stride: int
    size: tuple[int, int]
    sampling: str = "dense"
    short_side: int = 0
    views: int = 1
    crops: int = 1

    @property
    def length(self) -> int:
        """Return T, the frames of the tensor: those of all views and crops, one after the other."""
        return self.frames * self.views * self.crops

    def facts(self) -> dict[str, Any]:
        """Return what JSON files say of it: what every clip has, and what is not as usual; ``read`` takes it back."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        usual = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in told.items() if value != usual[name]} | {"size": list(self.size)}

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> ClipSpec:
        """Return the clip that ``facts`` tells of.

        Raises:
            KeyError, TypeError, ValueError: they tell of none.
        """
        clip = cls(**{**facts, "size": tuple(facts["size"])})
        numbers = (clip.frames, clip.views, clip.crops, *clip.size)
        if len(clip.size) != 2 or not all(type(number) is int and 0 < number < MOST for number in numbers):
            raise ValueError(f"{dict(facts)} is no clip")
        return clip


@dataclass(frozen=True)
class ModelCard:
    """What one must know of a video classifier to feed it and to trust its numbers.

    Attributes:
        name: what people call it; zoo name or file name.
        arch: name of the architecture in the registry, with ``options`` its keyword arguments.
        classes: label names, in the order of the logits.
        clip: the clip the model was trained on.
        mean: per-channel mean of the normalisation inside the model, for pixels in [0, 1].
        std: per-channel standard deviation, likewise.
        options: keyword arguments of the architecture.
        weights_digest: SHA-256 of the weights, ``""`` when they were never saved.
        lineage: what was done to get these weights, oldest first.
    """

    name: str
    arch: str
    classes: tuple[str, ...]
    clip: ClipSpec
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    options: Mapping[str, Any] = field(default_factory=dict)
    weights_digest: str = ""
    lineage: tuple[Mapping[str, Any], ...] = ()


class Sample(NamedTuple):
    """One labelled clip as it leaves a dataset: ``frames`` is uint8 RGB, ``(T, H, W, 3)``."""

    id: str
    frames: Tensor
    label: int


@runtime_checkable
class VideoDataset(Protocol):
    """Labelled videos by number. ``ids`` are unique; ``classes`` are the label names in order."""

    name: str
    split: str
    classes: Sequence[str]

    def __len__(self) -> int:
        """Return the number of videos."""
        ...

    def sample(self, index: int, clip: ClipSpec) -> Sample:
        """Return video ``index`` cut and resized as ``clip`` says."""
        ...


class AttackFunction(Protocol):
    """An attack: pure, same shape out as in, inside [0, 1] and inside the budget."""

    def __call__(self, model: nn.Module, clips: Tensor, labels: Tensor, budget: Budget, seeds: Tensor, /) -> Tensor:
        """Return the adversarial clips."""
        ...


def check_clips(clips: Tensor) -> None:
    """Refuse anything but float clips ``(B, 3, T, H, W)`` in [0, 1].

    Raises:
        ClipError: says what came, what was wanted and what to do.
    """
    shape = tuple(clips.shape)
    if clips.ndim != 5:
        raise ClipError(f"clips are {shape}: {clips.ndim} axes; robustvid wants (B, C, T, H, W)")
    if shape[1] != 3:
        others = {2: "permute(0, 2, 1, 3, 4)", 4: "permute(0, 4, 1, 2, 3)"}
        axis = next((axis for axis in others if shape[axis] == 3), None)
        advice = f": 3 channels on axis {axis}" if axis else ""
        remedy = f"; {others[axis]}" if axis else ""
        raise ClipError(f"clips are {shape}{advice}; robustvid wants (B, C, T, H, W) with C = 3{remedy}")
    if not clips.is_floating_point():
        raise ClipError(f"clips are {clips.dtype}; robustvid wants float32 in [0, 1]: clips.float() / 255")
    if clips.numel() == 0:
        raise ClipError(f"clips are {shape}: empty")
    low, high = (float(bound) for bound in torch.aminmax(clips.detach()))
    if not (low >= 0 and high <= 1):  # written so that NaN is refused too
        advice = "divide by 255 and leave mean and std to the model" if high > 2 else "clamp or rescale them"
        raise ClipError(f"clips span {low:g} to {high:g}; robustvid wants [0, 1]: {advice}")


def check_labels(labels: Tensor, clips: Tensor) -> None:
    """Refuse anything but int64 labels ``(B,)`` for these clips.

    Raises:
        ClipError: says what came and what was wanted.
    """
    if labels.dtype != torch.int64 or labels.shape != clips.shape[:1]:
        raise ClipError(f"labels are {labels.dtype} {tuple(labels.shape)}; robustvid wants int64 ({clips.shape[0]},)")


def check_logits(logits: Any, clips: Tensor) -> Tensor:
    """Return ``logits`` when they are finite ``(B, K)`` for these clips.

    Raises:
        ClipError: says what the model returned and what was wanted.
    """
    if not isinstance(logits, Tensor):
        raise ClipError(f"the model returned {type(logits).__name__}; robustvid wants a tensor of logits (B, K)")
    if logits.ndim != 2 or logits.shape[0] != clips.shape[0] or logits.shape[1] < 2:
        raise ClipError(
            f"the model returned {tuple(logits.shape)} for {clips.shape[0]} clips; "
            f"robustvid wants logits ({clips.shape[0]}, K), K at least 2"
        )
    if not torch.isfinite(logits).all():
        raise ClipError("the model returned NaN or infinite logits")
    return logits


def in_lanes(model: nn.Module, clips: Tensor, lanes: int) -> Tensor:
    """Return the model's logits for ``clips``, asked for in batches of exactly ``lanes`` clips, padded with grey.

    Kernels choose their order of summation by the shape of the batch, so that the same clip gets logits that differ in
    the last bits, and with them signs of gradients, when its batch has another size. Asked this way, what a clip gets
    depends on the clip alone, but for kernels that look at its place in the batch too: matrix products of some CPUs do.

    Raises:
        ClipError: the model returned anything but finite logits ``(B, K)``.
    """
    count = len(clips)
    if count == lanes:  # else cutting and joining copies the gradient
        return check_logits(model(clips), clips)
    padding = clips.new_full((-count % lanes, *clips.shape[1:]), 0.5)
    chunks = (torch.cat([clips, padding]) if len(padding) else clips).split(lanes)
    return torch.cat([check_logits(model(chunk), chunk) for chunk in chunks])[:count]


def clip_seed(run_seed: int, sample_id: str, card_key: str) -> int:
    """Return the seed of one attack on one clip: order and batch size cannot change it."""
    digest = hashlib.sha256(f"{run_seed}\0{sample_id}\0{card_key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class _Random(NamedTuple):
    python: Any
    numpy: Any
    cpu: Tensor
    cuda: list[Tensor]


def _random_state() -> _Random:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return _Random(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)  # noqa: NPY002


def _set_random_state(state: _Random) -> None:
    random.setstate(state.python)
    np.random.set_state(state.numpy)  # noqa: NPY002
    torch.set_rng_state(state.cpu)
    if state.cuda:
        torch.cuda.set_rng_state_all(state.cuda)


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Lend ``model`` out in evaluation mode without parameter gradients, and take it back unchanged.

    Afterwards every module's mode, every ``requires_grad``, every buffer (BatchNorm statistics among them),
    every ``.grad`` and the global random state are bit for bit what they were, also after an exception.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad, p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    slots = [(module, dict(module._buffers), dict(module._parameters)) for module in model.modules()]  # noqa: SLF001
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = torch.is_grad_enabled()
    randomness = _random_state()
    try:
        model.eval()
        model.requires_grad_(False)
        yield model
    finally:
        torch.set_grad_enabled(gradients)
        for module, training in modes:
            module.training = training
        for module, own_buffers, own_parameters in slots:
            module._buffers.update(own_buffers)  # noqa: SLF001  a forward may have put new tensors there
            module._parameters.update(own_parameters)  # noqa: SLF001
        with torch.no_grad():
            for buffer, saved in buffers:
                if not torch.equal(buffer, saved):
                    buffer.copy_(saved)
            for parameter, requires_grad, grad, saved_grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad
                if grad is not None and saved_grad is not None:
                    grad.copy_(saved_grad)
        _set_random_state(randomness)
