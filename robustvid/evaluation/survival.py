"""Which of the clips kept with a run stay adversarial when they are stored, sent or scaled."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from robustvid.codec import through_h264
from robustvid.data.transforms import from_clips, resize_frames, to_clips
from robustvid.evaluation.evidence import Evidence

log = logging.getLogger("robustvid")

Treatment = Callable[[Tensor], Tensor]  # uint8 frames (T, H, W, 3) to the same
_Key = tuple[str, int, str | None]  # treatment, number of the clip, and threat; None for the clean clip
_AT_ONCE = 64


def drop(frames: Tensor) -> Tensor:
    """Lose every fourth frame: the one before is shown again."""
    numbers = torch.arange(len(frames))
    return frames[numbers - (numbers % 4 == 3).long()]


def halve(frames: Tensor) -> Tensor:
    """Scale frames to half their size and back."""
    height, width = frames.shape[1:3]
    small = resize_frames(frames, (max(1, height // 2), max(1, width // 2)))
    return resize_frames(small, (height, width))


def treatments() -> Mapping[str, Treatment]:
    """Return what clips are put through, by name; video files are left out where PyAV is not installed."""
    files = {f"H.264, CRF {crf}": partial(through_h264, crf=crf) for crf in (18, 23, 28)} if find_spec("av") else {}
    return {"8 bits": lambda frames: frames, **files, "every fourth frame lost": drop, "half size and back": halve}


def survival(model: Callable[[Tensor], Tensor], kept: Iterable[Evidence], device: torch.device) -> list[dict[str, Any]]:
    """Put attacked clips through each treatment, and the clean clips too, and look at them again.

    Attacks did not know what would be done to their clips: an attack that did would survive more often.

    Args:
        model: returns logits of clips ``(B, 3, T, H, W)``.
        kept: clips of a run; those that fell are looked at.
        device: of the model.

    Returns:
        For each threat ``threat``, ``n`` clips that fell, and for each of its ``treatments`` a ``name``, how many of
        them are ``still`` wrong, and on how many of their clean clips the model is ``right``.
    """
    fallen = [clip for clip in kept if not clip.row["robust"]]
    wrong = _wrong(model, fallen, device)
    return [
        {
            "threat": threat,
            "n": len(own),
            "treatments": [
                {
                    "name": name,
                    "still": sum(wrong[name, clip.row["index"], threat] for clip in own),
                    "right": sum(not wrong[name, clip.row["index"], None] for clip in own),
                }
                for name in treatments()
            ],
        }
        for threat in sorted({clip.threat for clip in fallen})
        if (own := [clip for clip in fallen if clip.threat == threat])
    ]


def _wrong(model: Callable[[Tensor], Tensor], fallen: list[Evidence], device: torch.device) -> dict[_Key, bool]:
    """Return whether the model is wrong about every treated clip, asked of many at once and of clean clips once."""
    wrong: dict[_Key, bool] = {}
    jobs = _treated(fallen)
    while part := list(itertools.islice(jobs, _AT_ONCE)):
        keys, labels, frames = zip(*part, strict=True)
        with torch.no_grad():
            predicted = model(to_clips(list(frames)).to(device)).argmax(1).tolist()
        wrong |= {key: found != label for key, label, found in zip(keys, labels, predicted, strict=True)}
    return wrong


def _treated(fallen: list[Evidence]) -> Iterator[tuple[_Key, int, Tensor]]:
    """Yield the treated frames of attacked and of clean clips, with their label."""
    clean = {clip.row["index"]: clip for clip in fallen}
    for name, treat in treatments().items():
        for clip in fallen:
            yield (
                (name, clip.row["index"], clip.threat),
                clip.row["label"],
                treat(from_clips(clip.adversarial[None])[0]),
            )
        for index, clip in clean.items():
            yield (name, index, None), clip.row["label"], treat(clip.clean.permute(1, 2, 3, 0))
