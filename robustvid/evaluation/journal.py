"""The journal: one JSON line a measurement, appended and synced, so that nothing measured is ever lost."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from robustvid.errors import RunError
from robustvid.ranks import Ranks

try:
    import fcntl
except ImportError:  # Windows has no flock; there two writers at once are not noticed
    fcntl = None  # type: ignore[assignment]

CLEAN = "clean"  # the name of the measurement without an attack
PACKED = ".gz"
_MOST_UNPACKED = 512 << 20


@dataclass(frozen=True)
class Row:
    """One measurement of one clip.

    ``clean`` and ``predicted`` are class numbers without and with the perturbation; ``margin`` is
    z_y - max_{k≠y} z_k after the attack, negative where the clip is broken; ``size`` is the largest ratio of a
    measured norm to its radius. ``forwards`` and ``backwards`` are clips that passed through the model for this
    clip's share of the batch; ``seconds`` likewise. Radii are as written. ``index`` is the clip's place in the
    dataset and ``digest`` the start of the SHA-256 of its pixels.
    """

    sample: str
    index: int
    digest: str
    label: int
    attack: str
    card_key: str
    norm: str | None
    eps_frame: str | None
    eps_clip: str | None
    frames: int | None
    clean: int
    predicted: int
    robust: bool
    margin: float
    size: float
    linf: float
    l2_clip: float
    l2_frame_max: float
    frames_touched: int
    forwards: float
    backwards: float
    seconds: float


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
}
_FIELDS = {field.name: _KINDS[str(field.type)] for field in fields(Row)}
_floats = itemgetter(*(name for name, kinds in _FIELDS.items() if float in kinds))


class Journal:
    """Append-only writer of ``rows.jsonl``; a line torn by a crash is dropped on opening."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        """Open for appending, alone, after dropping a torn last line."""
        self._file = self.path.open("ab")
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._file.close()
                raise RunError(f"another process is writing {self.path}; wait for it, or give another --out") from None
        os.truncate(self.path, _whole_length(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file and with it the lock."""
        self._file.close()

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows and wait until they are on the disk."""
        lines = (json.dumps(vars(row), allow_nan=False, ensure_ascii=False) for row in rows)
        # Names of others' data may be no UTF-8; json reads them back so.
        self._file.write("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))
        self._file.flush()
        os.fsync(self._file.fileno())

    def take_in(self, order: Sequence[int]) -> None:
        """Append what several processes wrote beside it, clip by clip as in ``order``, and delete their files.

        Where it is cut off it can be done again: what is there already is not appended twice.
        """
        if not (parts := _parts(self.path)):
            return
        known, place = set(_read(self.path)), {index: number for number, index in enumerate(order)}
        rows = [row for part in parts for row in _read(part) if row not in known]
        self.append(sorted(rows, key=lambda row: place.get(row.index, len(place))))
        for part in parts:
            part.unlink()


@contextmanager
def shared_journal(path: Path, ranks: Ranks, order: Sequence[int]) -> Iterator[Journal]:
    """Yield the journal that this process writes: the one at ``path``, or, where several measure, a part of its own.

    The parts, such as ``rows.1.jsonl`` beside ``rows.jsonl``, are brought together at the end; where the processes do
    not come so far, whoever opens the journal next does it.

    Args:
        path: of the whole journal; locked for as long as any of the processes measures.
        ranks: the processes.
        order: places of the clips in the dataset, in the order in which one process alone would measure them.
    """
    with Journal(path) if ranks.first else nullcontext() as whole:
        if whole:
            whole.take_in(order)
        ranks.wait()
        if whole and ranks.size == 1:
            yield whole
            return
        with Journal(path.with_name(f"{path.stem}.{ranks.rank}{path.suffix}")) as part:
            yield part
        ranks.wait()
        if whole:
            whole.take_in(order)
        ranks.wait()


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a journal, or of its packed form beside it; a torn last line is not one.

    Parts of it that several processes wrote and that are not brought together yet come after it.

    Raises:
        RunError: a line in the middle is not a row, or the packed form is damaged.
    """
    parts = _parts(path)
    rows = itertools.chain.from_iterable(map(_read, (path, *parts)))
    yield from dict.fromkeys(rows) if parts else rows


def _parts(path: Path) -> list[Path]:
    """Return the parts of a journal that several processes wrote, in their order."""
    found = {part.name.split(".")[-2]: part for part in path.parent.glob(f"{path.stem}.*{path.suffix}")}
    return [found[rank] for rank in sorted(filter(str.isdecimal, found), key=int)]


def _read(path: Path) -> Iterator[Row]:
    packed = path.with_name(path.name + PACKED)
    if path.is_file():
        whole = path.read_bytes()[: _whole_length(path)]
    elif packed.is_file():
        whole = _unpack(packed)
    else:
        return
    for number, line in enumerate(whole.splitlines(), 1):
        table = _parse(line)
        if table is None:
            raise RunError(f"{path} line {number} is not a measurement; the file was changed or damaged")
        yield Row(**table)


def pack(path: Path, target: Path) -> None:
    """Write a journal's whole lines, compressed: the same bytes for the same journal.

    Raises:
        RunError: parts of it are not brought together yet.
    """
    if parts := _parts(path):
        raise RunError(f"{parts[0]} is not in {path.name} yet; run the same attack again, which brings them together")
    target.write_bytes(gzip.compress(path.read_bytes()[: _whole_length(path)], mtime=0))


def _unpack(path: Path) -> bytes:
    with gzip.open(path) as file:
        try:
            content = file.read(_MOST_UNPACKED + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise RunError(f"{path} is damaged: {error}") from None
    if len(content) > _MOST_UNPACKED:
        raise RunError(f"{path} holds more than {_MOST_UNPACKED >> 20} MiB")
    return content


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        table = json.loads(line)
        if not isinstance(table, dict) or not _fit(tuple(table), tuple(map(type, table.values()))):
            return None
        return table if all(map(math.isfinite, _floats(table))) else None
    except (ValueError, RecursionError, OverflowError):
        return None


@lru_cache(maxsize=64)  # thousands of rows, and a handful of combinations
def _fit(names: tuple[str, ...], kinds: tuple[type, ...]) -> bool:
    return set(names) == _FIELDS.keys() and all(kind in _FIELDS[name] for name, kind in zip(names, kinds, strict=True))


def _whole_length(path: Path) -> int:
    """Return the length of the file without a torn last line."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    last = content[:end].rstrip(b"\n").rfind(b"\n") + 1
    return end if not content[last:end].strip() or _parse(content[last:end]) is not None else last
