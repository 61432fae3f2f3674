"""Checks: every number of a board is computed again from its evidence, and every doubt is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robustvid.errors import LeaderboardError, RobustvidError
from robustvid.evaluation.results import Results
from robustvid.evaluation.spec import model_facts
from robustvid.leaderboard.boards import PROTOCOL, Board, changed_attacks
from robustvid.leaderboard.entries import ENTRY, Entry, digests, read_entry, texts_too_long
from robustvid.leaderboard.numbers import compute_numbers, differences, implausible
from robustvid.leaderboard.timing import TIMES, time_faults

_MOST_FAULTS = 10


def entry_folders(board: Board) -> list[Path]:
    """Return the folders of a board's entries, by name."""
    return sorted(path for path in board.folder.iterdir() if path.is_dir())


def check_board(board: Board, progress: Callable[[], None] | None = None) -> dict[str, list[str]]:
    """Return what is wrong, by entry or file of the board, such as ``"board.toml"``; nothing where all is well.

    Args:
        board: its protocol, its entries and their evidence are read.
        progress: called after every entry.
    """
    return sound_entries(board, progress)[1]


def sound_entries(board: Board, progress: Callable[[], None] | None = None) -> tuple[list[Entry], dict[str, list[str]]]:
    """Return the entries that pass every check, and what is wrong with the others, as :func:`check_board` does."""
    faults = {PROTOCOL: changed_attacks(board)}
    sound: list[Entry] = []
    for folder in entry_folders(board):
        try:
            entry = read_entry(folder)
            faults[folder.name] = check_entry(entry, board)
        except RobustvidError as error:
            faults[folder.name] = [str(error)]
        else:
            if not faults[folder.name]:
                sound.append(entry)
        if progress:
            progress()
    for entry in sound:
        faults[entry.id] += _beside_others(entry, sound, board)
    faults[TIMES] = time_faults(board, sound)[:_MOST_FAULTS]
    wrong = {name: found for name, found in faults.items() if found}
    return [entry for entry in sound if entry.id not in wrong], wrong


def check_entry(entry: Entry, board: Board) -> list[str]:
    """Return what is wrong with one entry, taken alone."""
    facts = entry.facts
    faults = _evidence_faults(entry) or texts_too_long(entry.folder)
    if facts["board"] != board.name or facts["protocol"] != board.version:
        faults.append(
            f"it was made for {facts['board']}, version {facts['protocol']}; this is {board.name}, "
            f"version {board.version}"
        )
    if faults:  # what the files say means nothing where they are not the files
        return faults
    try:
        results = entry.results
        faults = board.mismatches(results, other_attacks=entry.of is not None)
        if not results.complete or not results.n:
            faults.append("the run is not complete")
        if facts["weights_sha256"] != results.spec["model"]["weights"]:
            faults.append("weights_sha256 is not that of the run")
        faults += implausible(results)[:_MOST_FAULTS]
        _ = entry.clips, entry.frames, results.environment
        faults += _unnamed(results) + _survival_faults(results)
        if not faults:
            faults += differences(facts["numbers"], compute_numbers(results, board))[:_MOST_FAULTS]
            faults += _model_faults(entry)
    except RobustvidError as error:
        faults.append(str(error))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        faults.append(f"the evidence is damaged: {error!r}")
    return faults


def _evidence_faults(entry: Entry) -> list[str]:
    stated, found = entry.facts["evidence"], digests(entry.folder)
    known = {*found, ENTRY}
    faults = [
        f"{path.name} is no file of evidence"
        for path in sorted(entry.folder.iterdir())
        if path.name not in known or path.is_symlink() or not path.is_file()
    ]
    faults += [f"{name} is missing" for name in stated if name not in found]
    faults += [f"{name} is not listed" for name in found if name not in stated]
    return faults + [
        f"{name} was changed: its SHA-256 is {found[name]}, not {stated[name]}"
        for name in stated
        if name in found and found[name] != stated[name]
    ]


def _unnamed(results: Results) -> list[str]:
    """Return which names of the spec are no names; the page shows them."""
    model = results.spec["model"]
    names = [("model.name", model["name"]), ("model.arch", model["arch"])]
    names += [("a class", name) for name in model["classes"]]
    names += [("an attack", attack.name) for group in results.plan.groups for attack in group]
    return [f"{what} is {name!r}, wanted text" for what, name in names if not (isinstance(name, str) and name)]


def _survival_faults(results: Results) -> list[str]:
    """Return what is told of the kept clips that cannot be: they are not in the evidence, but how many fell is."""
    told = results.survival
    names = {tuple(one["name"] for one in line["treatments"]) for line in told}
    faults = ["survival.json names other treatments for each threat"] if len(names) > 1 else []
    for line in told:
        if line["threat"] not in results.threats:
            faults.append(f"survival.json: {line['threat']!r} is no threat of the run")
            continue
        verdicts = results.verdicts(line["threat"])
        standing = verdicts.drop(columns=["sample", "digest", "label", "clean"]).all(axis=1)
        fell = int((verdicts["clean"].astype(bool) & ~standing).sum())
        counts = [line["n"], *(one[count] for one in line["treatments"] for count in ("still", "right"))]
        if not line["n"] <= fell or not 0 <= min(counts) <= max(counts) <= line["n"]:
            faults.append(f"survival.json: counts of {line['threat']} that are not of its {fell} clips that fell")
    return faults


def _model_faults(entry: Entry) -> list[str]:
    """Hold the model that comes with robustvid, if it is one, to what was measured.

    The network's digest is left out: it is of the source file, which may change without changing an answer;
    ``verify`` attacks the model as it now is.
    """
    from robustvid.models import load_model, zoo

    if entry.facts["source"] not in zoo():
        return []
    try:
        model = load_model(entry.facts["source"])
    except RobustvidError as error:
        return [f"its model cannot be loaded: {error}"]
    now, then = (
        {k: v for k, v in facts.items() if k != "network"}
        for facts in (model_facts(model), entry.results.spec["model"])
    )
    faults = [f"model {one}" for one in differences(then, now)]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters != entry.facts["parameters"]:
        faults.append(f"parameters is {entry.facts['parameters']}, the model has {parameters}")
    return faults


def _beside_others(entry: Entry, others: Sequence[Entry], board: Board) -> list[str]:
    faults = []
    first = next(other for other in others if other.results.spec["model"]["clip"] == _clip(entry))
    if _clips_seen(entry, board) != _clips_seen(first, board):
        faults.append(f"it was measured on other clips than {first.id}")
    if entry.of is not None:
        target = next((other for other in others if other.id == entry.of), None)
        if target is None:
            faults.append(f"it evaluates {entry.of} again, which is no sound entry of this board")
        elif target.facts["weights_sha256"] != entry.facts["weights_sha256"]:
            faults.append(f"it evaluates {entry.of} again, with other weights")
    return faults


def _clip(entry: Entry) -> Any:
    return entry.results.spec["model"]["clip"]


def _clips_seen(entry: Entry, board: Board) -> set[tuple[str, str]]:
    verdicts = entry.results.verdicts(board.threat.name)
    return set(zip(verdicts["sample"], verdicts["digest"], strict=True))


def find_entry(board: Board, name: str) -> Entry:
    """Return an entry of a board by id.

    Raises:
        LeaderboardError: there is none of this name.
    """
    known = [folder.name for folder in entry_folders(board)]
    if name not in known:
        raise LeaderboardError(f"no entry {name!r} on {board.name}. There are: {', '.join(known) or 'none yet'}.")
    return read_entry(board.folder / name)
