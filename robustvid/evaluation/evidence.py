"""The clips kept with a run: what the model saw, before and after, exactly as it was measured."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robustvid.evaluation.journal import Row

log = logging.getLogger("robustvid")


class Evidence(NamedTuple):
    """One attacked clip.

    Attributes:
        row: the measurement, as in the journal.
        threat: name of the threat.
        clean: uint8 ``(C, T, H, W)``.
        adversarial: float32 ``(C, T, H, W)`` in [0, 1], bit for bit what was measured.
    """

    row: dict[str, Any]
    threat: str
    clean: Tensor
    adversarial: Tensor


def keep_clip(folder: Path, threat: str, row: Row, clean: Tensor, adversarial: Tensor) -> None:
    """Write one attacked clip to ``folder``, replacing an earlier one of the same sample and threat.

    A clip that cannot be written is a warning: it is a picture for the report, the measurement is in the journal.
    """
    folder.mkdir(exist_ok=True)
    name = f"{row.index}-{threat}.safetensors"
    temporary = folder / f"{name}.part"
    tensors = {"clean": clean.contiguous(), "adversarial": adversarial.contiguous()}
    try:
        save_file(tensors, temporary, metadata={"row": json.dumps(asdict(row)), "threat": threat})
        temporary.replace(folder / name)
    except (OSError, SafetensorError) as error:
        log.warning("cannot keep the clip %s for the report: %s", name, error)


def read_clips(folder: Path) -> Iterator[Evidence]:
    """Yield the clips kept in a run's ``clips`` folder, by file name; a damaged file is passed over with a warning."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata()
                yield Evidence(
                    json.loads(about["row"]), about["threat"], file.get_tensor("clean"), file.get_tensor("adversarial")
                )
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            log.warning("passing over %s, which is damaged: %s", path, error)


def as_float(clip: Tensor) -> Tensor:
    """Return uint8 clips as float32 in [0, 1]."""
    return clip.to(torch.float32) / 255
