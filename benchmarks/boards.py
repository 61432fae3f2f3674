"""The zoo's entries on the boards of motion10, computed from runs and written anew.

    python -m benchmarks.boards                                   # everything; what is measured already is not repeated
    python -m benchmarks.boards --board motion10-linf --model conv3d conv3d-pgd --measured
    python -m benchmarks.boards --verify --clips 20               # attack again what nobody has
    python -m benchmarks.boards --tables                          # the boards as tables

Runs lie under --runs as BOARD/MODEL; an interrupted one goes on. With --measured, only runs that are complete are
entered, and none is begun. With --extend, a run begins with what the model's entry has measured: where the battery of a
board has gained an attack, only that one is run, and on what still stood.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import robustvid as rv
from benchmarks import command_line
from robustvid.contracts import ModelCard
from robustvid.errors import RunError
from robustvid.evaluation.journal import Journal, read_rows
from robustvid.evaluation.machine import keep_freed_memory
from robustvid.evaluation.results import AUDIT
from robustvid.evaluation.spec import write_json
from robustvid.evaluation.sweep import choose_clips
from robustvid.leaderboard.boards import Board, list_boards, load_board, shipped_boards
from robustvid.leaderboard.checking import check_board, find_entry, sound_entries
from robustvid.leaderboard.entries import ENTRY, note_status, read_entry, write_entry
from robustvid.leaderboard.ranking import places
from robustvid.leaderboard.verifying import earned, verify
from robustvid.models import zoo

BY, ROWS = "the robustvid authors", "rows.jsonl.gz"
KEPT = 40  # clips of every threat that a run keeps, for the page and for what survives storage


def training(card: ModelCard) -> str:
    """Return how a model of the zoo was trained, in a few words, from its lineage."""
    plan = card.lineage[-1]["plan"]
    if plan["objective"] == "natural":
        return "natural"
    cut = [f", {step['amount']:.0%} of {step['kind']} removed" for step in card.lineage if step["step"] == "prune"]
    schedule = "" if plan["schedule"] == "constant" else f", {plan['schedule']}"
    return f"{plan['objective'].partition(':')[0]}, {' or '.join(plan['threats'])}{schedule}{''.join(cut)}"


def measured(board: Board, name: str, runs: Path, *, only_complete: bool, extend: bool) -> rv.Results | None:
    """Return the run of a model by the protocol of a board, made now if it has to be; None where it may not be."""
    folder = runs / board.name / name
    if only_complete:
        results = rv.Results(folder) if (folder / "spec.json").is_file() else None
        return results if results is not None and results.complete else None
    run = partial(
        rv.evaluate,
        rv.load_model(name),
        rv.load_data(board.data, split=board.split),
        board.load_attacks(),
        board.budgets,
        limit=board.clips,
        seed=board.seed,
        strategy=board.strategy,
        precision=board.precision,
        keep=KEPT,
        out=folder,
    )
    if extend and not folder.is_dir():
        begin_with(board.folder / name, board, folder, run)
    return run()


class _BegunError(Exception):
    """A run has its folder and its spec."""


def begin_with(entry: Path, board: Board, folder: Path, run: Callable[..., rv.Results]) -> None:
    """Begin a run with the rows of an entry: what an attack makes of a clip does not depend on the battery.

    Those of the clips that are kept are made anew, as an entry does not hold what attacks made of them.

    Raises:
        RunError: the entry was measured in another way.
    """

    def stop(_: object) -> None:
        raise _BegunError

    with suppress(_BegunError):
        run(progress=stop)
    before, now = rv.Results(entry).spec, rv.Results(folder).spec
    others = [key for key in before | now if key not in {"battery", "attacks"} and before.get(key) != now.get(key)]
    if others:
        raise RunError(f"{entry} was measured with another {', '.join(others)}: measure it without --extend")
    kept = choose_clips(now["data"]["videos"], board.clips, board.seed)[:KEPT]
    for name in ("rows.jsonl", AUDIT):
        (folder / name).unlink(missing_ok=True)
        with Journal(folder / name) as journal:
            journal.append(row for row in read_rows(entry / name) if row.index not in kept)


def enter(board: Board, name: str, results: rv.Results) -> None:
    """Write the entry of a model of the zoo, in place of an earlier one; of the same run the history stays."""
    model = rv.load_model(name)
    folder = board.folder / name
    before = read_entry(folder).facts if (folder / ENTRY).is_file() else None
    shutil.rmtree(folder, ignore_errors=True)
    facts = {
        "source": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training": training(model.card),
        "license": "Apache-2.0",
        "by": BY,
    }
    entry = write_entry(results, board, folder, facts)
    if before is not None and before["evidence"][ROWS] == entry.facts["evidence"][ROWS]:
        write_json(folder / ENTRY, entry.facts | {name: before[name] for name in ("date", "history")})
    headline = entry.facts["numbers"]["headline"]
    print(f"{board.name}/{name}: {headline['correct']:g} of {entry.facts['numbers']['n']} at {headline['budget']}")


def attack_again(board: Board, name: str, runs: Path, clips: int) -> bool:
    """Verify an entry and note the outcome in it."""
    entry = find_entry(board, name)
    out = runs / "verify" / board.name / f"{name}-{clips}"
    data = rv.load_data(board.data, split=board.split)
    verdicts = verify(entry, board, rv.load_model(name), data, out, clips=clips)
    agrees = all(verdict.agrees for verdict in verdicts)
    for one in verdicts:
        print(f"  {one.budget:<22} stated {one.stated:g} of {one.n} [{one.lo:.1f}, {one.hi:.1f}], found {one.found:g}")
    note_status(entry, earned(entry, verdicts), BY, f"{clips} clips attacked again with seed 1")
    print(f"{board.name}/{name}: {'agrees' if agrees else 'DOES NOT AGREE'}")
    return agrees


def unverified(board: Board, names: list[str]) -> Iterator[str]:
    """Yield which of the names have an entry that nobody has attacked again."""
    for name in names:
        if (board.folder / name).is_dir() and len(find_entry(board, name).facts["history"]) == 1:
            yield name


def table(board: Board) -> str:
    """Return a board as a table: ranks, clean accuracy and robust accuracy at every budget, in per cent."""
    others = (
        [] if board.corruptions else [text for text in map(rv.Budget.describe, board.budgets) if text != board.question]
    )
    lines = [
        f"| rank | model | training | clean | {' | '.join([*others, board.question])} | flags |",
        "|---" * (len(others) + 6) + "|",
    ]
    for place in places(board, sound_entries(board)[0]):
        entry, numbers = place.entry, place.entry.facts["numbers"]
        stands = {one["budget"]: one["correct"] for threat in numbers["threats"] for one in threat["budgets"]}
        cells = [
            *(f"{100 * stands[budget] / place.n:.1f}" for budget in others),
            f"**{100 * place.correct / place.n:.1f} [{100 * place.lo:.1f}, {100 * place.hi:.1f}]**",
        ]
        flags = ", ".join(sorted({flag["flag"] for flag in numbers["flags"]})) or "–"
        clean = f"{100 * numbers['clean'] / place.n:.1f}"
        lines.append(
            f"| {place.rank} | {entry.id} | {entry.facts['training']} | {clean} | {' | '.join(cells)} | {flags} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, enter, and say what does not agree."""
    parser = command_line("boards", __doc__)
    parser.add_argument("--board", nargs="+", default=[name for name in list_boards() if name.startswith("motion10-")])
    parser.add_argument("--model", nargs="+", default=zoo())
    parser.add_argument("--runs", type=Path, default=Path("runs/boards"))
    parser.add_argument("--measured", action="store_true", help="enter what is measured, and measure nothing")
    parser.add_argument("--extend", action="store_true", help="begin with what the entries have measured")
    parser.add_argument("--verify", action="store_true", help="attack the entries again instead")
    parser.add_argument("--tables", action="store_true", help="print the boards instead")
    parser.add_argument("--clips", type=int, default=20, help="with --verify: how many")
    asked = parser.parse_args()
    keep_freed_memory()
    for name in asked.board:
        board = load_board(name, shipped_boards())
        if asked.tables:
            print(f"\n{name}\n\n{table(board)}")
            continue
        if asked.verify:
            for model in unverified(board, asked.model):
                attack_again(board, model, asked.runs, asked.clips)
            continue
        for model in asked.model:
            results = measured(board, model, asked.runs, only_complete=asked.measured, extend=asked.extend)
            if results is not None:
                enter(board, model, results)
        for entry, faults in check_board(board).items():
            print(f"{board.name}/{entry}: {'; '.join(faults)}")


if __name__ == "__main__":
    main()
