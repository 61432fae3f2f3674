"""Entries: a model on a board, as a folder of facts, numbers and the evidence that they follow from.

The folder is also a run folder: ``robustvid report`` reads it. Nothing in it is trusted: texts have a length, names
stay inside the folder, links are https, and what is shown as a picture is one.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from robustvid.errors import LeaderboardError
from robustvid.evaluation.evidence import as_float
from robustvid.evaluation.journal import PACKED, pack
from robustvid.evaluation.results import AUDIT, LEFT_OUT, ROWS, SURVIVAL, Results
from robustvid.evaluation.spec import write_json
from robustvid.leaderboard.boards import Board
from robustvid.leaderboard.fields import (
    MOST_JSON,
    NAME,
    is_count,
    is_date,
    is_digest,
    is_link,
    is_number,
    is_text,
    read_json,
    short,
)
from robustvid.leaderboard.numbers import compute_numbers
from robustvid.reporting.sprites import playable_clips

ENTRY, CLIPS, FRAMES, SCHEMA = "entry.json", "clips.json", "frames.json", "robustvid.entry/1"
STATUSES = ("self-reported", "reproduced", "verified", "flagged")
PLAIN = ("spec.json", "environment.json", "model_flags.json", "path.json", LEFT_OUT, SURVIVAL)
JOURNALS = (ROWS, AUDIT)
EVIDENCE = (*PLAIN, *(name + PACKED for name in JOURNALS), CLIPS, FRAMES)
_LONGEST_TEXT = 2000
_PICTURE = "data:image/webp;base64,"


@dataclass(frozen=True)
class Entry:
    """One folder of a board.

    Attributes:
        folder: where it lies; its name is the entry's id.
        facts: what ``entry.json`` says, checked field by field.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def id(self) -> str:
        """Return the name of the folder."""
        return self.folder.name

    @property
    def of(self) -> str | None:
        """Return the entry whose model this evaluates again; None where it stands for itself."""
        of: str | None = self.facts["of"]
        return of

    @property
    def status(self) -> str:
        """Return the last word of the history; ``"flagged"`` wherever a flag was raised."""
        if self.facts["numbers"]["flags"]:
            return "flagged"
        return str(self.facts["history"][-1]["status"])

    @cached_property
    def results(self) -> Results:
        """Return the run that the numbers follow from.

        Raises:
            RunError: it is damaged.
        """
        return Results(self.folder)

    @cached_property
    def clips(self) -> list[dict[str, Any]]:
        """Return the clips to show.

        Raises:
            LeaderboardError: a field is not what the page may show.
        """
        path = self.folder / CLIPS
        clips = read_json(path) if path.is_file() else []
        faults = _clip_faults(clips)
        if faults:
            raise LeaderboardError(f"{path}: {'; '.join(faults[:3])}")
        return list(clips)

    @cached_property
    def frames(self) -> dict[str, list[list[float]]]:
        """Return by threat, for every clip kept with the run, the perturbation of each frame, RMS in 1/255.

        Raises:
            LeaderboardError: the file holds anything else.
        """
        path = self.folder / FRAMES
        found = read_json(path) if path.is_file() else {}
        if not _is_frames(found):
            raise LeaderboardError(f"{path}: wanted lists of the perturbation of each frame, by threat")
        return dict(found)


def read_entry(folder: Path) -> Entry:
    """Return the entry of a folder.

    Raises:
        LeaderboardError: it has none, or a field is missing, unknown or malformed; all faults are named at once.
    """
    if folder.is_symlink():
        raise LeaderboardError(f"{folder} is a link; an entry is a folder")
    facts = read_json(folder / ENTRY)
    faults = entry_faults(facts)
    if not NAME.fullmatch(folder.name):
        faults.append(
            f"the folder is called {folder.name!r}; wanted small letters, digits, dots and dashes, at most 64"
        )
    elif isinstance(facts, dict) and facts.get("id") != folder.name:
        faults.append(f"id is {short(facts.get('id'))}, the folder is called {folder.name!r}")
    if faults:
        raise LeaderboardError(f"{folder / ENTRY}: {'; '.join(faults)}")
    return Entry(folder, facts)


def check_run(results: Results, board: Board, *, external: bool = False) -> None:
    """Refuse a run that cannot be entered to a board.

    Args:
        results: the run.
        board: where to enter it.
        external: whether it evaluates the model of another entry, and may attack in its own way.

    Raises:
        LeaderboardError: it follows another protocol, or is not complete.
    """
    faults = board.mismatches(results, other_attacks=external)
    if not results.complete or not results.n:
        faults.append(f"the run is not complete: {results.n} clips looked at; the same command again goes on")
    if faults:
        raise LeaderboardError(f"{results.folder} cannot be entered to {board.name}: {'; '.join(faults)}")


def write_entry(results: Results, board: Board, folder: Path, facts: Mapping[str, Any]) -> Entry:
    """Make an entry of a run.

    Args:
        results: the run; it has to be complete and to follow the board's protocol.
        board: what it is entered to.
        folder: where to write it; a new or empty folder whose name becomes the id.
        facts: ``of``, ``source``, ``parameters``, ``title``, ``training``, ``extra_data``, ``code_url``,
            ``weights_url``, ``license``, ``paper_url``, ``bibtex``, ``by``; what is left out is empty.

    Raises:
        LeaderboardError: the run is not complete or follows another protocol, or a fact is not what an entry may hold.
    """
    check_run(results, board, external=facts.get("of") is not None)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    entry = _EMPTY | {
        "schema": SCHEMA,
        "id": folder.name,
        "board": board.name,
        "protocol": board.version,
        "weights_sha256": results.spec["model"]["weights"],
        "date": today,
        "history": [{"date": today, "status": "self-reported", "by": str(facts.get("by", "")), "note": ""}],
        "numbers": json.loads(json.dumps(compute_numbers(results, board))),
        **facts,
    }
    if faults := entry_faults(entry | {"evidence": {}}):
        raise LeaderboardError(f"this cannot be an entry: {'; '.join(faults)}")
    if folder.is_dir() and any(folder.iterdir()):
        raise LeaderboardError(f"{folder} is not empty; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    told = [name for name in PLAIN if name != SURVIVAL or not board.corruptions]  # what no enemy made need not survive
    for name in told:
        if (results.folder / name).is_file():
            shutil.copyfile(results.folder / name, folder / name)
    for name in JOURNALS:
        if (results.folder / name).is_file():
            pack(results.folder / name, folder / (name + PACKED))
    write_json(folder / CLIPS, _chosen(playable_clips(results)))
    write_json(folder / FRAMES, _by_frame(results))
    write_json(folder / ENTRY, entry | {"evidence": digests(folder)})
    return read_entry(folder)


def texts_too_long(folder: Path) -> list[str]:
    """Return which files of evidence are larger, or hold longer texts, than any run writes."""
    faults = [
        f"{name} is larger than {MOST_JSON >> 20} MiB"
        for name in EVIDENCE
        if (folder / name).is_file() and (folder / name).stat().st_size > MOST_JSON
    ]
    return faults or [
        f"{name} holds a text of {length:,} characters"
        for name in PLAIN
        if (folder / name).is_file() and (length := _longest(read_json(folder / name))) > _LONGEST_TEXT
    ]


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of evidence in a folder."""
    names = [name for name in EVIDENCE if (folder / name).is_file()]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def note_status(entry: Entry, status: str, by: str, note: str) -> Entry:
    """Add a line to an entry's history, and return the entry as it now is.

    Raises:
        LeaderboardError: the line is not what an entry may hold.
    """
    today = dt.datetime.now(dt.UTC).date().isoformat()
    line = {"date": today, "status": status, "by": by, "note": note}
    facts = entry.facts | {"history": [*entry.facts["history"], line]}
    if faults := entry_faults(facts):
        raise LeaderboardError(f"{entry.folder / ENTRY}: {'; '.join(faults)}")
    write_json(entry.folder / ENTRY, facts)
    return read_entry(entry.folder)


def entry_faults(facts: Any) -> list[str]:
    """Return what is wrong with the fields of an entry, one by one."""
    if not isinstance(facts, dict):
        return [f"it holds {type(facts).__name__}, wanted an object"]
    faults = [f"{name!r} is missing" for name in _FIELDS if name not in facts]
    faults += [f"unknown field {short(name)}" for name in facts if name not in _FIELDS]
    return faults + [
        f"{name} is {short(facts[name])}, wanted {wanted}"
        for name, (check, wanted) in _FIELDS.items()
        if name in facts and not check(facts[name])
    ]


def _chosen(clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each threat the first clip that fell and the first that stands."""
    chosen: dict[tuple[str, bool], dict[str, Any]] = {}
    for clip in clips:
        chosen.setdefault((clip["threat"], clip["broken"]), clip)
    return list(chosen.values())


def _by_frame(results: Results) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {}
    for kept in results.clips():
        rms = 255 * (kept.adversarial - as_float(kept.clean)).square().mean((0, 2, 3)).sqrt()
        found.setdefault(kept.threat, []).append([round(value, 4) for value in rms.tolist()])
    return found


def _longest(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max(map(_longest, parts), default=0)


def _history(value: Any) -> bool:
    keys = {"date", "status", "by", "note"}
    return (
        isinstance(value, list)
        and 0 < len(value) <= 100
        and all(isinstance(line, dict) and line.keys() == keys for line in value)
        and all(is_date(line["date"]) and line["status"] in STATUSES for line in value)
        and all(is_text(200)(line["by"]) and is_text(1000)(line["note"]) for line in value)
    )


def _evidence(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= set(EVIDENCE) and all(map(is_digest, value.values()))


def _numbers(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("flags"), list):
        return False
    return all(isinstance(flag, dict) and is_text(100)(flag.get("flag")) for flag in value["flags"])


_TEXT = (is_text(200), "text of at most 200 characters")
_LINK = (is_link, "a link that begins with https://, or nothing")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "schema": (lambda value: value == SCHEMA, SCHEMA),
    "id": (lambda value: isinstance(value, str) and NAME.fullmatch(value) is not None, "the name of the folder"),
    "board": (is_text(100, 1), "the name of a board"),
    "protocol": (is_count, "the version of the board's protocol"),
    "of": (
        lambda value: value is None or (isinstance(value, str) and NAME.fullmatch(value) is not None),
        "the id of the entry that this evaluates again, or null",
    ),
    "title": _TEXT,
    "source": _TEXT,
    "parameters": (is_count, "a whole number"),
    "training": _TEXT,
    "extra_data": _TEXT,
    "code_url": _LINK,
    "weights_url": _LINK,
    "weights_sha256": (is_digest, "64 hexadecimal digits"),
    "license": _TEXT,
    "paper_url": _LINK,
    "bibtex": (is_text(5000), "text of at most 5,000 characters"),
    "by": _TEXT,
    "date": (is_date, "a date, 2026-11-26"),
    "history": (_history, f"lines of date, status ({', '.join(STATUSES)}), by and note"),
    "numbers": (_numbers, "the numbers of the run"),
    "evidence": (_evidence, f"the SHA-256 of {', '.join(EVIDENCE)}"),
}
_EMPTY: dict[str, Any] = {"of": None, "parameters": 0} | dict.fromkeys(
    ("title", "source", "training", "extra_data", "code_url", "weights_url", "license", "paper_url", "bibtex", "by"), ""
)


def _is_picture(value: Any) -> bool:
    if not isinstance(value, str) or not value.startswith(_PICTURE):
        return False
    try:
        content = base64.b64decode(value.removeprefix(_PICTURE), validate=True)
    except ValueError:
        return False
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


_CLIP_FIELDS: dict[str, Callable[[Any], bool]] = {
    "clean": _is_picture,
    "adversarial": _is_picture,
    **dict.fromkeys(("frames", "step", "columns", "height", "width"), lambda value: is_count(value) and value > 0),
    "amplify": is_count,
    "rms": lambda value: isinstance(value, list) and all(map(is_number, value)),
    "peaks": lambda value: isinstance(value, list) and all(map(is_count, value)),
    **dict.fromkeys(("sample", "threat", "attack", "budget", "label", "before", "after"), is_text(300)),
    "broken": lambda value: isinstance(value, bool),
    "margin": is_number,
}


def _is_frames(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_text(100)(threat)
        and isinstance(clips, list)
        and bool(clips)
        and all(map(_is_profile, clips))
        and len({len(clip) for clip in clips}) == 1
        for threat, clips in value.items()
    )


def _is_profile(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 1000 and all(is_number(one) and one >= 0 for one in value)


def _clip_faults(clips: Any) -> list[str]:
    if not isinstance(clips, list) or not all(isinstance(clip, dict) for clip in clips):
        return ["it is no list of clips"]
    faults = [
        f"clip {place}: {name} is {short(clip.get(name))}"
        for place, clip in enumerate(clips)
        for name, check in _CLIP_FIELDS.items()
        if not check(clip.get(name))
    ]
    return faults + [
        f"clip {place}: an unknown field, or not one value of rms and peaks for each frame"
        for place, clip in enumerate(clips)
        if not faults
        and (clip.keys() != _CLIP_FIELDS.keys() or not len(clip["rms"]) == len(clip["peaks"]) == clip["frames"])
    ]
