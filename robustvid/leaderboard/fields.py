"""What a field of an entry may hold, and how a file that nobody vouches for is read."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustvid.errors import LeaderboardError

MOST_JSON = 8 << 20
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # of a board or an entry, and of its folder


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        LeaderboardError: it is missing, a link, too large, or no JSON.
    """
    try:
        if path.is_symlink() or path.stat().st_size > MOST_JSON:
            raise LeaderboardError(f"{path} is a link or larger than {MOST_JSON >> 20} MiB")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise LeaderboardError(f"{path.parent} is no entry: it has no {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise LeaderboardError(f"{path} cannot be read: {error}") from None


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def short(value: Any) -> str:
    """Return a value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_text(most: int, least: int = 0) -> Callable[[Any], bool]:
    """Return a check for text of so many characters."""
    return lambda value: isinstance(value, str) and least <= len(value) <= most and "\x00" not in value


def is_link(value: Any) -> bool:
    """Return whether it is an https address, or empty."""
    return value == "" or (isinstance(value, str) and re.fullmatch(r"https://[^\s\"'<>\\]{3,300}", value) is not None)


def is_count(value: Any) -> bool:
    """Return whether it is a whole number that JSON readers agree on."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def is_number(value: Any) -> bool:
    """Return whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_digest(value: Any) -> bool:
    """Return whether it has the form of a SHA-256."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def is_date(value: Any) -> bool:
    """Return whether it has the form of a date of this century."""
    return isinstance(value, str) and re.fullmatch(r"20\d\d-\d\d-\d\d", value) is not None
