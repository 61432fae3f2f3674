"""Model cards as JSON, checked field by field."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from robustvid.contracts import MOST, ClipSpec, ModelCard
from robustvid.errors import ModelError
from robustvid.registry import did_you_mean

_Check = Callable[[Any], bool]


def write_card(card: ModelCard) -> str:
    """Return the card as JSON text.

    Raises:
        ModelError: options or lineage hold what JSON has no word for, or a field is not what a card may hold.
    """
    try:
        text = json.dumps(asdict(card) | {"clip": card.clip.facts()}, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ModelError(f"the card of {card.name} cannot be written as JSON: {error}") from None
    parse_card(text, Path(f"the card of {card.name}"))
    return text


def parse_card(text: str, file: Path) -> ModelCard:
    """Return the card that JSON ``text`` describes.

    Args:
        text: what the file holds.
        file: where it comes from, for messages.

    Raises:
        ModelError: it is not JSON, or a field is missing, unknown or malformed; all faults are named at once.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise ModelError(f"{file} holds {type(entries).__name__}; wanted an object with {', '.join(_FIELDS)}")
    faults = _faults(entries, _FIELDS, ModelCard) or _faults(entries["clip"], _CLIP_FIELDS, ClipSpec)
    if faults:
        raise ModelError(f"{file}: {'; '.join(faults)}")
    tuples = {name: tuple(entries[name]) for name in ("classes", "mean", "std", "lineage")}
    return ModelCard(**(entries | tuples | {"clip": ClipSpec.read(entries["clip"])}))


def _faults(entries: dict[str, Any], table: dict[str, tuple[_Check, str]], kind: type) -> list[str]:
    needed = [field.name for field in fields(kind) if kind is ModelCard or field.default is MISSING]
    names = [field.name for field in fields(kind)]
    faults = [f"{name!r} is missing" for name in needed if name not in entries]
    faults += [f"unknown field {name!r}.{did_you_mean(name, names)}" for name in entries if name not in names]
    faults += [
        f"{name!r} is {json.dumps(entries[name])}, wanted {wanted}"
        for name, (check, wanted) in table.items()
        if name in entries and not check(entries[name])
    ]
    return faults


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_list(value: Any, check: _Check, length: int | None = None) -> bool:
    return isinstance(value, list) and all(map(check, value)) and (length is None or len(value) == length)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_FIELDS: dict[str, tuple[_Check, str]] = {
    "name": (_is_text, "text"),
    "arch": (_is_text, "the name of an architecture"),
    "classes": (
        lambda value: _is_list(value, _is_text) and len(set(value)) == len(value) >= 2,
        "a list of two or more different class names",
    ),
    "clip": (_is_object, "an object with frames, stride and size"),
    "mean": (lambda value: _is_list(value, _is_number, 3), "three numbers"),
    "std": (lambda value: _is_list(value, _is_number, 3) and min(value) > 0, "three positive numbers"),
    "options": (_is_object, "an object"),
    "weights_digest": (
        lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
        "64 hexadecimal digits",
    ),
    "lineage": (lambda value: _is_list(value, _is_object), "a list of objects"),
}
_CLIP_FIELDS: dict[str, tuple[_Check, str]] = {
    "frames": (_is_count, "a positive whole number"),
    "stride": (_is_count, "a positive whole number"),
    "size": (lambda value: _is_list(value, _is_count, 2), "height and width in pixels, [64, 64]"),
    "sampling": (lambda value: value in ["dense", "uniform"], "dense or uniform"),
    "short_side": (lambda value: value == 0 or _is_count(value), "pixels, or 0"),
    "views": (_is_count, "a positive whole number"),
    "crops": (lambda value: _is_count(value) and value in (1, 3), "1 or 3"),
}
