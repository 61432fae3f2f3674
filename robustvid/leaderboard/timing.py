"""How long each model of a board takes for one clip: all of them in turns, on one machine, at one time.

No run can tell: what its forwards took depends on what else its machine did. So these numbers are no part of an entry.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from robustvid.compression.cost import Latency, latencies
from robustvid.errors import LeaderboardError
from robustvid.evaluation.machine import device_name
from robustvid.evaluation.spec import write_json
from robustvid.leaderboard.boards import Board
from robustvid.leaderboard.entries import Entry
from robustvid.leaderboard.fields import is_count, is_date, is_digest, is_number, is_text, read_json, short
from robustvid.models.classifier import VideoClassifier, weights_digest

TIMES, SCHEMA = "times.json", "robustvid.times/1"
_MODEL = {"weights_sha256", *Latency._fields}


def time_models(models: Mapping[str, VideoClassifier], *, threads: int = 1) -> dict[str, Any]:
    """Time models in turns, about three seconds each, on the CPU.

    Args:
        models: by the id of their entry.
        threads: of the CPU.

    Returns:
        What :func:`write_times` writes: ``date``, ``device``, ``threads``, ``torch``, and ``models`` by id:
        ``weights_sha256``, ``p50`` and ``p95`` in milliseconds for one clip alone, ``clips_per_second`` in
        batches of eight.
    """
    times = latencies(models, threads)
    return {
        "schema": SCHEMA,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "device": device_name(torch.device("cpu")),
        "threads": threads,
        "torch": torch.__version__,
        "models": {
            name: {"weights_sha256": weights_digest(model)}
            | {part: round(value, 3) for part, value in times[name]._asdict().items()}
            for name, model in models.items()
        },
    }


def write_times(board: Board, entries: Sequence[Entry], times: Mapping[str, Any]) -> list[str]:
    """Write the times of those entries whose very weights were timed, in place of earlier ones.

    Args:
        board: where to write.
        entries: of the board.
        times: by :func:`time_models`.

    Returns:
        The ids of the entries that were not timed.
    """
    own = {}
    for entry in entries:
        line = times["models"].get(entry.id)
        if line and line["weights_sha256"] == entry.facts["weights_sha256"]:
            own[entry.id] = line
    if own:
        write_json(board.folder / TIMES, {**times, "models": own})
    return [entry.id for entry in entries if entry.id not in own]


def read_times(board: Board) -> dict[str, Any] | None:
    """Return what :func:`write_times` wrote for a board; None where nothing was measured.

    Raises:
        LeaderboardError: the file holds anything else.
    """
    path = board.folder / TIMES
    if not path.exists():
        return None
    found = read_json(path)
    checks: dict[str, Callable[[Any], bool]] = {
        "schema": lambda value: value == SCHEMA,
        "date": is_date,
        "device": is_text(200, 1),
        "threads": is_count,
        "torch": is_text(100, 1),
        "models": lambda value: isinstance(value, dict) and all(map(_is_time, value.values())),
    }
    if not isinstance(found, dict) or found.keys() != checks.keys():
        raise LeaderboardError(f"{path}: wanted an object of {', '.join(checks)}")
    if wrong := [name for name, check in checks.items() if not check(found[name])]:
        raise LeaderboardError(f"{path}: {', '.join(wrong)} is not what robustvid leaderboard time writes")
    return found


def time_faults(board: Board, entries: Sequence[Entry]) -> list[str]:
    """Return where the times of a board are not those of its entries' models."""
    try:
        times = read_times(board)
    except LeaderboardError as error:
        return [str(error)]
    timed = times["models"] if times else {}
    folders = {path.name for path in board.folder.iterdir() if path.is_dir()}
    faults = [f"it times {short(name)}, which is no entry" for name in timed if name not in folders]
    return faults + [
        f"{entry.id} was timed with other weights; robustvid leaderboard time measures anew"
        for entry in entries
        if entry.id in timed and timed[entry.id]["weights_sha256"] != entry.facts["weights_sha256"]
    ]


def _is_time(line: Any) -> bool:
    return (
        isinstance(line, dict)
        and line.keys() == _MODEL
        and is_digest(line["weights_sha256"])
        and all(is_number(line[part]) and line[part] > 0 for part in Latency._fields)
    )
