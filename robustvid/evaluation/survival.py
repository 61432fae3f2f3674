"""Which of the clips kept with a run stay adversarial when they are stored, sent or scaled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
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
    by_threat: dict[str, list[Evidence]] = {}
    for clip in kept:
        if not clip.row["robust"]:
            by_threat.setdefault(clip.threat, []).append(clip)
    return [
        {
            "threat": threat,
            "n": len(fallen),
            "treatments": [
                {"name": name, **_count(model, fallen, treat, device)} for name, treat in treatments().items()
            ],
        }
        for threat, fallen in sorted(by_threat.items())
    ]


def _count(
    model: Callable[[Tensor], Tensor], fallen: list[Evidence], treat: Treatment, device: torch.device
) -> dict[str, int]:
    labels = torch.tensor([clip.row["label"] for clip in fallen])
    attacked = [treat(from_clips(clip.adversarial[None])[0]) for clip in fallen]
    clean = [treat(clip.clean.permute(1, 2, 3, 0)) for clip in fallen]
    with torch.no_grad():
        after, before = (model(to_clips(frames).to(device)).argmax(1).cpu() for frames in (attacked, clean))
    return {"still": int((after != labels).sum()), "right": int((before == labels).sum())}
