"""Lists of class names in files."""

from __future__ import annotations

import re
from pathlib import Path

from robustvid.errors import DataError


def read_classes(file: str | Path) -> tuple[str, ...]:
    """Return the class names that a text file lists, in the order of the labels.

    Args:
        file: one name a line, or lines such as UCF101's ``1 ApplyEyeMakeup``, numbered from 0 or from 1 without gaps.

    Raises:
        DataError: there is no such file, it lists fewer than two names or one twice, or its numbers have gaps.
    """
    try:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read class names from {file}: {error}") from None
    numbered = [re.fullmatch(r"(\d+)\s+(\S.*)", line) for line in lines]
    if lines and all(numbered):
        pairs = sorted((int(match[1]), match[2]) for match in numbered if match)
        first = pairs[0][0]
        if first not in {0, 1} or [number for number, _ in pairs] != list(range(first, first + len(pairs))):
            raise DataError(f"the numbers of the classes in {file} do not run from 0 or 1 without gaps")
        lines = [name for _, name in pairs]
    if len(lines) < 2 or len(set(lines)) < len(lines):
        raise DataError(f"{file} lists {len(lines)} class names, {len(set(lines))} different ones; wanted two or more")
    return tuple(lines)
