"""A training on disk: what it needs to go on after it was stopped, by whatever."""

from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustvid.errors import RunError

STATE_FILE, HISTORY_FILE = "state.pt", "history.json"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the state whole or not at all, and wait until it is on the disk."""
    temporary = folder / f".{STATE_FILE}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / STATE_FILE)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(folder: Path, device: torch.device, key: str) -> dict[str, Any] | None:
    """Return the state in ``folder``, None where there is none; runs no code of the file.

    Args:
        folder: of the training.
        device: where its tensors go.
        key: of the training's spec, which the state names.

    Raises:
        RunError: the file cannot be read, or is of another training.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:200]
        raise RunError(f"{path} cannot be read ({reason}); --fresh sets the training aside and begins again") from None
    if not isinstance(state, dict) or state.get("key") != key:
        raise RunError(f"{path} is not a state of this training; --fresh sets the training aside and begins again")
    return state


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return what every epoch of a training has measured.

    Raises:
        RunError: the file cannot be read.
    """
    path = folder / HISTORY_FILE
    try:
        history: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        if not isinstance(history, list) or not all(isinstance(epoch, dict) for epoch in history):
            raise ValueError("it holds no list of epochs")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    return history


def random_state() -> dict[str, Any]:
    """Return the global random states as values that ``torch.load`` reads without running code."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  a model may draw from it
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Bring back what :func:`random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
