"""The spec of a run: everything that could change a number, and the folder named after its hash."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np

import robustvid
from robustvid.contracts import VideoDataset
from robustvid.errors import RunError
from robustvid.evaluation.cards import Attack
from robustvid.evaluation.threats import Threat, cell_text
from robustvid.models.classifier import VideoClassifier, weights_digest
from robustvid.ranks import Ranks
from robustvid.registry import a_type, source_of

SCHEMA = 1
_TYPES: dict[str, dict[str, type]] = {  # by kind; what readers count on
    "attack": {
        **dict.fromkeys(("data.name", "data.split", "strategy"), str),
        **dict.fromkeys(("data.clips", "data.videos", "seed"), int),
        **dict.fromkeys(("model.classes", "attacks", "budgets"), list),
    },
    "training": {"data.name": str, "plan": dict, "plan.epochs": int, "plan.seed": int},
}


def make_spec(  # noqa: PLR0917  one argument for each part of a run
    model: VideoClassifier,
    data: VideoDataset,
    groups: Sequence[Sequence[Attack]],
    battery: str | None,
    threats: Sequence[Threat],
    clips: Sequence[int],
    settings: Mapping[str, Any],
    surrogate: VideoClassifier | None = None,
) -> dict[str, Any]:
    """Return the spec as plain JSON values; ``settings`` are strategy, seed, lanes and device.

    A surrogate is in it when there is one, and leaves no trace when there is none.
    """
    spec: dict[str, Any] = {
        "schema": SCHEMA,
        "robustvid": robustvid.__version__,
        "model": model_facts(model),
        **({} if surrogate is None else {"surrogate": model_facts(surrogate)}),
        "data": {
            "name": data.name,
            "split": data.split,
            "digest": getattr(data, "digest", None),
            "videos": len(data),
            "clips": len(clips),
            "order": hashlib.sha256(json.dumps(list(clips)).encode()).hexdigest()[:16],
        },
        "battery": battery,
        "attacks": [
            [
                {
                    "name": attack.name,
                    "key": attack.key,
                    "function": attack.target,
                    "version": attack.version,
                    "params": attack.arguments(),
                    "access": attack.access,
                }
                for attack in group
            ]
            for group in groups
        ],
        "budgets": [{"norm": budget.norm} | cell_text(budget) for threat in threats for budget in threat.budgets],
        **settings,
    }
    # Through JSON once, so that the hash of the spec made here is that of the spec read back.
    plain: dict[str, Any] = json.loads(json.dumps(spec, default=_plain))
    return plain


def spec_key(spec: Mapping[str, Any]) -> str:
    """Return the first ten hexadecimal digits of the spec's SHA-256."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:10]


def open_run(spec: Mapping[str, Any], out: str | Path | None, *, fresh: bool) -> Path:
    """Return the run's folder, made or found again: ``runs/<model>-<data>-<key>`` unless ``out`` names another.

    Args:
        spec: the run's spec.
        out: the run folder itself.
        fresh: move an earlier run in this folder out of the way instead of going on with it.

    Raises:
        RunError: the folder belongs to another spec, or cannot be written, or the spec could not be read again.
    """
    if fault := _type_fault(spec, str(spec.get("kind", "attack"))):
        raise RunError(f"this run could not be read again: {fault}")
    key = spec_key(spec)
    folder = Path(out) if out is not None else default_folder(spec)
    existing = folder / "spec.json"
    if fresh and existing.is_file():
        _set_aside(folder)
    if existing.is_file():
        _refuse_other(folder, key)
        return folder
    try:
        if folder.is_dir() and any(not path.name.startswith(".spec.json.") for path in folder.iterdir()):
            raise RunError(f"{folder} is not empty and holds no run; give --out a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(existing, spec)
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror or error}; give another --out") from None
    return folder


def open_together(spec: Mapping[str, Any], out: str | Path | None, ranks: Ranks, *, fresh: bool) -> Path:
    """Do what :func:`open_run` does, in the first of several processes, and return the folder in all of them."""
    folder = open_run(spec, out, fresh=fresh) if ranks.first else Path(out or default_folder(spec))
    ranks.wait()
    return folder


def default_folder(spec: Mapping[str, Any]) -> Path:
    """Return ``runs/<model>-<data>-<key>``."""
    name = f"{spec['model']['name']}-{spec['data']['name']}-{spec_key(spec)}"
    return Path("runs") / re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def read_spec(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """Return the spec of a run folder.

    Args:
        folder: the run folder.
        kind: what it has to be of, ``"attack"`` or ``"training"``; None for either.

    Raises:
        RunError: there is none, it is not readable, it is of the other kind, or a value is of another type than its
            readers count on.
    """
    try:
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{folder} is not a run folder: it has no spec.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{folder / 'spec.json'} cannot be read: {error}") from None
    if not isinstance(spec, dict) or spec.get("schema") != SCHEMA:
        raise RunError(f"{folder / 'spec.json'} is not a spec of schema {SCHEMA}")
    found = spec.get("kind", "attack")
    if kind is not None and found != kind:
        raise RunError(f"{folder} is the folder of a run of kind {found}; one of kind {kind} is wanted")
    if fault := _type_fault(spec, str(found)):
        raise RunError(f"{folder / 'spec.json'} is damaged: {fault}")
    return spec


def _type_fault(spec: Mapping[str, Any], kind: str) -> str | None:
    models = ("model",) if "surrogate" not in spec else ("model", "surrogate")
    names = {f"{model}.{name}": str for model in models for name in ("name", "arch", "weights")}
    for path, wanted in (names | _TYPES.get(kind, {})).items():
        try:
            value = reduce(getitem, path.split("."), spec)
        except (KeyError, TypeError, IndexError):
            value = None
        if type(value) is not wanted:
            return f"{path} is {value!r}; {a_type(wanted)} is wanted"
    return None


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def model_facts(model: VideoClassifier) -> dict[str, Any]:
    """Return what a spec says of a model: all that decides its answers."""
    card = model.card
    return {
        "name": card.name,
        "arch": card.arch,
        "weights": weights_digest(model),
        "network": _network_digest(model),
        "options": dict(card.options),
        "mean": list(card.mean),
        "std": list(card.std),
        "classes": list(card.classes),
        "clip": card.clip.facts(),
    }


def _network_digest(model: VideoClassifier) -> str:
    """Return a hash of what the weights do not tell: the source of the network, its structure, its unsaved buffers."""
    network, saved = getattr(model, "network", model), model.state_dict()
    digest = hashlib.sha256(f"{source_of(type(network))}\0{network!r}".encode())
    for name, buffer in model.named_buffers():
        if name not in saved:
            digest.update(f"{name}\0{buffer.tolist()}".encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Return numpy scalars as Python's own, and what JSON has no word for as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _refuse_other(folder: Path, key: str) -> None:
    theirs = spec_key(read_spec(folder))
    if theirs != key:
        raise RunError(
            f"{folder} belongs to another run (spec {theirs}, this one is {key}): "
            "give another --out, or --fresh to set the old run aside"
        )


def _set_aside(folder: Path) -> None:
    number = 1
    while (target := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    folder.rename(target)
