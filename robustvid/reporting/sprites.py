"""Sprite sheets: clips as lossless pictures that a page can play, pixel by pixel what was measured, in 8 bits."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
from torch import Tensor

from robustvid.data.transforms import from_clips
from robustvid.evaluation.evidence import Evidence, as_float
from robustvid.evaluation.results import Results
from robustvid.reporting.filmstrip import amplification, budget_text

MOST_CLIPS = 12
# Characters of base64: together they keep the page under 5 MB, and one large clip leaves room for two more.
ALL_CLIPS, ONE_CLIP = 4_300_000, 1_430_000


def playable_clips(results: Results) -> list[dict[str, Any]]:
    """Return what the page shows of the kept clips: threats take turns until the page is full."""
    shown: list[dict[str, Any]] = []
    room = ALL_CLIPS
    for evidence in _in_turns(results):
        clip = _playable(evidence, results.spec["model"]["classes"])
        room -= len(clip["clean"]) + len(clip["adversarial"])
        if room < 0 or len(shown) == MOST_CLIPS:
            break
        shown.append(clip)
    return shown


def to_bytes(clip: Tensor) -> Tensor:
    """Round a clip ``(C, T, H, W)`` in [0, 1] to uint8, as it would be stored in a video."""
    return from_clips(clip[None])[0].permute(3, 0, 1, 2)


def sprite_sheet(clip: Tensor) -> str:
    """Return a uint8 clip ``(C, T, H, W)`` as a data URL of one lossless WebP picture, frames in rows of a grid."""
    from PIL import Image

    columns = grid_columns(clip.shape[1])
    frames = clip.permute(1, 2, 3, 0).numpy()
    blank = np.zeros((-len(frames) % columns, *frames.shape[1:]), dtype=np.uint8)
    rows = np.concatenate([frames, blank]).reshape(-1, columns, *frames.shape[1:])
    picture = rows.transpose(0, 2, 1, 3, 4).reshape(rows.shape[0] * rows.shape[2], -1, 3)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", lossless=True, quality=60, method=4, exact=True)
    return "data:image/webp;base64," + b64encode(file.getvalue()).decode()


def grid_columns(frames: int) -> int:
    """Return how many frames lie side by side in a sheet."""
    return math.ceil(math.sqrt(frames))


def _in_turns(results: Results) -> Iterator[Evidence]:
    by_threat: dict[str, list[Evidence]] = {threat: [] for threat in results.threats}
    for evidence in results.clips():
        by_threat.setdefault(evidence.threat, []).append(evidence)
    for turn in zip_longest(*by_threat.values()):
        yield from (evidence for evidence in turn if evidence is not None)


def _playable(evidence: Evidence, classes: list[str]) -> dict[str, Any]:
    """Return one clip with its facts; every second, fourth ... frame where all of them would be too large."""
    row, delta = evidence.row, evidence.adversarial - as_float(evidence.clean)
    step = 1
    while True:
        clean, adversarial = evidence.clean[:, ::step], evidence.adversarial[:, ::step]
        sheets = {"clean": sprite_sheet(clean), "adversarial": sprite_sheet(to_bytes(adversarial))}
        if sum(map(len, sheets.values())) <= ONE_CLIP or clean.shape[1] == 1:
            break
        step *= 2
    changed = to_bytes(adversarial).int() - clean.int()
    rms = delta[:, ::step].square().mean((0, 2, 3)).sqrt() * 255
    return sheets | {
        "frames": clean.shape[1],
        "step": step,
        "columns": grid_columns(clean.shape[1]),
        "height": clean.shape[2],
        "width": clean.shape[3],
        "rms": [round(value, 4) for value in rms.tolist()],
        "peaks": changed.abs().amax((0, 2, 3)).tolist(),
        "amplify": int(math.log2(amplification(delta))),
        "sample": row["sample"],
        "threat": evidence.threat,
        "attack": row["attack"],
        "budget": budget_text(row),
        "broken": not row["robust"],
        "label": classes[row["label"]],
        "before": classes[row["clean"]],
        "after": classes[row["predicted"]],
        "margin": row["margin"],
    }
