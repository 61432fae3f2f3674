"""``robustvid leaderboard``: make entries of runs, doubt them, and build the page."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from robustvid.cli.options import BOARDS, DEVICE, JSON, ROOT
from robustvid.cli.progress import counted, sweep_progress
from robustvid.cli.runs import find_run


@click.group(
    epilog="""\b
Examples:
  robustvid attack --board motion10-linf --model my/checkpoint
  robustvid leaderboard submit RUN --id my-model --by "My name"
  robustvid leaderboard build --out index.html
"""
)
def leaderboard() -> None:
    """Enter runs to boards, check every number, and build the page."""


@leaderboard.command(
    "list",
    epilog="""\b
Example:
  robustvid leaderboard list
""",
)
@BOARDS
def list_boards_command(boards: str | None) -> None:
    """List the boards, what they measure, and how many entries they have."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from robustvid.leaderboard.checking import entry_folders

    table = Table("Board", "Ordered by", "Entries", "What it measures", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for board in _load(boards):
        cells = (board.name, board.question, str(len(entry_folders(board))), board.title)
        table.add_row(*map(Text, cells))
    Console().print(table)


@leaderboard.command(
    epilog="""\b
Examples:
  robustvid attack --battery standard --eps-frame 1..8*2/255 --clips all --root my/videos --data folder --out runs/first
  robustvid leaderboard new mine runs/first --headline "linf frame 4/255" --boards boards
  robustvid attack --board mine --boards boards --root my/videos --data folder --model other/checkpoint
"""
)
@click.argument("name")
@click.argument("run")
@click.option("--headline", default="", help='The budget that orders it, such as "linf frame 4/255".')
@click.option("--title", default="", help="What it measures, in words.  [default: the data and the headline]")
@click.option("--boards", type=click.Path(), default="boards", show_default=True, help="Folder of all boards.")
def new(name: str, run: str, headline: str, title: str, boards: str) -> None:
    """Make a board of your own: the protocol that a run follows, for other models to be measured in the same way.

    NAME is the board's, RUN a run folder, or its name inside ./runs. The run can then be submitted as its first entry.
    """
    from robustvid.evaluation.results import Results
    from robustvid.leaderboard.boards import PROTOCOL, write_board

    results = Results(find_run(run))
    board = write_board(results, Path(boards), name, headline=headline, title=title)
    click.echo(f"{name}: {board.clips} clips of {board.data}, {board.battery or 'corruptions'}, by {board.question}")
    click.echo(f"Board     {board.folder / PROTOCOL}")
    click.echo(f"Next      robustvid leaderboard submit {run} --board {name} --boards {boards} --id ID")


@leaderboard.command(
    epilog="""\b
Examples:
  robustvid attack --board motion10-linf --model my/checkpoint --out runs/mine
  robustvid leaderboard submit runs/mine --id my-model --source my/checkpoint --by "My name" --training "PGD, 4/255"
"""
)
@click.argument("run")
@click.option("--board", help="Where to enter it.  [default: the board whose protocol the run follows]")
@click.option("--id", "name", required=True, help="Name of the entry's folder: small letters, digits, dashes.")
@click.option("--of", help="The entry whose model this run attacks in another way.")
@click.option("--source", help="What --model loads.  [default: the name of the model]")
@click.option("--title", default="", help="Name to show.")
@click.option("--training", default="", help="How the model was trained, in a few words.")
@click.option("--extra-data", default="", help="What it was trained on beside the board's data.")
@click.option("--code-url", default="", help="https:// link.")
@click.option("--weights-url", default="", help="https:// link.")
@click.option("--license", "licence", default="", help="Of the weights.")
@click.option("--paper-url", default="", help="https:// link.")
@click.option("--bibtex", type=click.File(), help="A file.")
@click.option("--by", default="", help="Who submits it.")
@click.option("--out", type=click.Path(), help="A new folder.  [default: ./<id>]")
@BOARDS
def submit(run: str, board: str | None, name: str, out: str | None, boards: str | None, **facts: Any) -> None:
    """Make an entry of a run: the facts given here, its numbers, and the evidence.

    RUN is a run folder, or its name inside ./runs. The entry is a folder that `add` puts on a board.
    """
    from robustvid.evaluation.results import Results
    from robustvid.leaderboard.checking import check_entry
    from robustvid.leaderboard.entries import check_run, write_entry

    results = Results(find_run(run))
    external = facts["of"] is not None
    target = _fitting(results, board, boards, other_attacks=external)
    check_run(results, target, external=external)
    facts["license"], bibtex = facts.pop("licence"), facts.pop("bibtex")
    facts["source"] = facts["source"] or results.spec["model"]["name"]
    facts["parameters"] = _parameters(facts["source"])
    folder = Path(out) if out else Path(name)
    folder = folder if folder.name == name else folder / name
    entry = write_entry(results, target, folder, facts | {"bibtex": bibtex.read() if bibtex else ""})
    _tell_faults({entry.id: check_entry(entry, target)})
    numbers = entry.facts["numbers"]
    click.echo(f"{entry.id}: {numbers['headline']['correct']:g} of {numbers['n']} clips stand, {target.question}")
    click.echo(f"Entry     {folder}, for the board {target.name}")
    then = f" --boards {boards}" if boards else f", and a pull request with leaderboards/{target.name}"
    click.echo(f"Next      robustvid leaderboard add {folder}{then}")


@leaderboard.command(
    epilog="""\b
Example:
  robustvid leaderboard add my-model --boards leaderboards
"""
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@BOARDS
def add(folder: str, boards: str | None) -> None:
    """Put an entry on its board, if every check passes."""
    import shutil

    from robustvid.errors import LeaderboardError
    from robustvid.leaderboard.checking import check_board, check_entry
    from robustvid.leaderboard.entries import read_entry

    entry = read_entry(Path(folder).absolute())
    (board,) = _load(boards, entry.facts["board"])
    _tell_faults({entry.id: check_entry(entry, board)})
    if claimed := {line["status"] for line in entry.facts["history"]} - {"self-reported"}:
        raise LeaderboardError(
            f"a new entry is self-reported, this one says {', '.join(claimed)}: verify it on the board"
        )
    target = board.folder / entry.id
    if target.exists():
        raise LeaderboardError(f"{board.name} has an entry {entry.id} already; take another --id, or remove {target}")
    shutil.copytree(entry.folder, target)
    faults = {name: found for name, found in check_board(board).items() if name == entry.id}
    if faults:
        shutil.rmtree(target)
    _tell_faults(faults)
    click.echo(f"{entry.id} is on {board.name}: {target}")


@leaderboard.command(
    epilog="""\b
Examples:
  robustvid leaderboard check
  robustvid leaderboard check --boards leaderboards --board motion10-linf
"""
)
@click.option("--board", help="Only this one.")
@BOARDS
def check(board: str | None, boards: str | None) -> None:
    """Compute every number again from its evidence; exit with 2 and the reasons where one does not follow."""
    from robustvid.leaderboard.checking import check_board, entry_folders

    chosen = _load(boards, board)
    with _progress(chosen) as progress:
        found = {one.name: check_board(one, progress) for one in chosen}
    _tell_faults({f"{name}/{entry}": faults for name, by in found.items() for entry, faults in by.items()})
    for one in chosen:
        n = len(entry_folders(one))
        click.echo(f"{one.name}: {n} {'entry' if n == 1 else 'entries'}, every number follows from its evidence")


@leaderboard.command(
    epilog="""\b
Examples:
  robustvid leaderboard verify motion10-linf/conv3d-pgd
  robustvid leaderboard verify motion10-linf/mine --model my/checkpoint --clips 100 --record --by "My name"
"""
)
@click.argument("entry")
@click.option("-m", "--model", help="What to attack.  [default: what the entry names, if robustvid ships it]")
@click.option("-d", "--data", help="What loads the board's data.  [default: their name]")
@ROOT
@click.option("-n", "--clips", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the choice of clips and of the attacks.")
@click.option("--record", is_flag=True, help="Note the outcome in the entry.")
@click.option("--by", default="", help="Who verifies it, for --record.")
@click.option("--out", type=click.Path(), help="Run folder.  [default: runs/verify-<board>-<entry>-<seed>]")
@DEVICE
@JSON
@BOARDS
def verify(entry: str, boards: str | None, **options: Any) -> None:
    """Attack some clips of an entry again from the weights; exit with 1 where the numbers disagree.

    ENTRY is BOARD/ID. Other clips, other seeds: what is found has to lie in the 95 % interval of what is stated. With
    --record the entry is then "reproduced", or, where that was every clip of it, "verified"; else "flagged".
    """
    _verify(entry, boards, options)


@leaderboard.command(
    "time",
    epilog="""\b
Examples:
  robustvid leaderboard time
  robustvid leaderboard time --board ucf101-linf --model mine=my/checkpoint --boards leaderboards
""",
)
@click.option("--board", help="Only this one.")
@click.option("-m", "--model", "given", multiple=True, metavar="ID=SOURCE", help="What to load for an entry.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of the CPU.")
@BOARDS
def time_command(board: str | None, given: tuple[str, ...], threads: int, boards: str | None) -> None:
    """Time the models of the entries for one clip, all in turns, on the CPU; the page shows it.

    Models that come with robustvid are loaded by themselves, others where --model names them. What was timed before is
    replaced: only times of one machine at one time can be compared, so let it do nothing else meanwhile.
    """
    _time(board, given, threads, boards)


@leaderboard.command(
    epilog="""\b
Examples:
  robustvid leaderboard build
  robustvid leaderboard build --boards leaderboards --out site/index.html
"""
)
@click.option("--out", type=click.Path(), default="index.html", show_default=True, help="The page.")
@BOARDS
def build(out: str, boards: str | None) -> None:
    """Write one offline HTML file with every board; entries that fail the check are left out, by name."""
    from robustvid.leaderboard.page import write_page

    chosen = _load(boards)
    with _progress(chosen) as progress:
        path, left_out = write_page(chosen, Path(out), progress)
    for name, faults in left_out.items():
        click.echo(f"left out: {name}: {faults[0]}", err=True)
    click.echo(f"Page      {path}, {path.stat().st_size / 1e6:.1f} MB")


@leaderboard.command(
    epilog="""\b
Example:
  robustvid leaderboard serve --port 8000
"""
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@BOARDS
def serve(port: int, boards: str | None) -> None:
    """Build the page and show it on this machine alone, until Ctrl-C."""
    import tempfile
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    from robustvid.leaderboard.page import write_page

    with tempfile.TemporaryDirectory() as folder:
        chosen = _load(boards)
        with _progress(chosen) as progress:
            write_page(chosen, Path(folder, "index.html"), progress)
        handler = partial(SimpleHTTPRequestHandler, directory=folder)
        with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
            click.echo(f"Page      http://127.0.0.1:{server.server_port}/   Ctrl-C ends")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                click.echo()


def _verify(name: str, boards: str | None, options: dict[str, Any]) -> None:
    import robustvid as rv
    from robustvid.errors import LeaderboardError
    from robustvid.leaderboard.checking import find_entry
    from robustvid.leaderboard.entries import note_status
    from robustvid.leaderboard.verifying import earned
    from robustvid.leaderboard.verifying import verify as attack_again
    from robustvid.models import zoo

    board_name, slash, entry_name = name.partition("/")
    if not slash:
        raise click.BadParameter(f"{name!r} is no BOARD/ID, such as motion10-linf/conv3d-pgd", param_hint="ENTRY")
    (board,) = _load(boards, board_name)
    entry = find_entry(board, entry_name)
    source = options["model"] or entry.facts["source"]
    if options["model"] is None and source not in zoo():
        raise LeaderboardError(
            f"{entry.id} names {source!r}, which does not come with robustvid; what strangers name is not loaded "
            "unasked: give --model"
        )
    out = options["out"] or f"runs/verify-{board.name}-{entry.id}-{options['seed']}"
    with sweep_progress() as progress:
        verdicts = attack_again(
            entry,
            board,
            rv.load_model(source),
            board.load_data(options["data"] or board.data, options["root"]),
            Path(out),
            clips=options["clips"],
            seed=options["seed"],
            device=options["device"],
            progress=progress,
        )
    agrees = all(verdict.agrees for verdict in verdicts)
    if options["as_json"]:
        lines = [verdict._asdict() | {"agrees": verdict.agrees} for verdict in verdicts]
        click.echo(json.dumps({"entry": name, "agrees": agrees, "budgets": lines, "run": out}))
    else:
        for verdict in verdicts:
            click.echo(
                f"{verdict.budget:<24} stated {verdict.stated:>3g} of {verdict.n} [{verdict.lo:.1f}, {verdict.hi:.1f}]"
                f"   found {verdict.found:>3g}   {verdict.differing} clips differ"
                f"{'' if verdict.agrees else '   DISAGREES'}"
            )
        click.echo(f"{name}: {'agrees' if agrees else 'does not agree'} with what was found on {verdicts[0].n} clips")
    if options["record"]:
        note = f"{verdicts[0].n} clips attacked again with seed {options['seed']}"
        note_status(entry, earned(entry, verdicts), options["by"], note)
    click.get_current_context().exit(0 if agrees else 1)


def _time(board: str | None, given: tuple[str, ...], threads: int, boards: str | None) -> None:
    import robustvid as rv
    from robustvid.errors import LeaderboardError
    from robustvid.evaluation.machine import keep_freed_memory
    from robustvid.leaderboard.checking import sound_entries
    from robustvid.leaderboard.timing import time_models, write_times
    from robustvid.models import zoo

    if wrong := [pair for pair in given if not pair.partition("=")[2]]:
        raise click.BadParameter(f"{wrong[0]!r} is no ID=SOURCE", param_hint="--model")
    sources = dict(pair.partition("=")[::2] for pair in given)
    chosen = _load(boards, board)
    with _progress(chosen) as progress:
        own = {one.name: [entry for entry in sound_entries(one, progress)[0] if entry.of is None] for one in chosen}
    entries = [entry for found in own.values() for entry in found]
    if strange := sources.keys() - {entry.id for entry in entries}:
        raise LeaderboardError(f"no sound entry {min(strange)!r} on {', '.join(own)}")
    shipped = {entry.id: entry.facts["source"] for entry in entries if entry.facts["source"] in zoo()}
    models = {name: rv.load_model(source) for name, source in sorted((shipped | sources).items())}
    if not models:
        raise LeaderboardError("no entry's model comes with robustvid; what strangers name is not loaded: give --model")
    keep_freed_memory()  # else the model whose turn it is pays for what the one before gave back
    click.echo(f"{len(models)} models in turns, about {3 * len(models)} seconds", err=True)
    times = time_models(models, threads=threads)
    for name, line in times["models"].items():
        click.echo(
            f"{name:<24} {line['p50']:7.2f} ms   p95 {line['p95']:7.2f}   {line['clips_per_second']:6.0f} clips/s"
        )
    for one in chosen:
        for name in write_times(one, own[one.name], times):
            told = "these weights are not those of the entry" if name in models else f"give --model {name}=SOURCE"
            click.echo(f"not timed: {one.name}/{name}: {told}", err=True)


@contextmanager
def _progress(boards: list[Any]) -> Iterator[Callable[[], None]]:
    """Yield what is called after every entry of the boards that was checked."""
    from robustvid.leaderboard.checking import entry_folders

    done = itertools.count(1)
    with counted("entries checked", sum(len(entry_folders(board)) for board in boards)) as show:
        yield lambda: show(next(done))


def _load(boards: str | None, name: str | None = None) -> list[Any]:
    from robustvid.leaderboard.boards import list_boards, load_board

    root = None if boards is None else Path(boards)
    return [load_board(one, root) for one in (list_boards(root) if name is None else [name])]


def _fitting(results: Any, name: str | None, boards: str | None, *, other_attacks: bool) -> Any:
    from robustvid.errors import LeaderboardError

    candidates = _load(boards, name)
    if name is not None:
        return candidates[0]
    found = [board for board in candidates if not board.mismatches(results, other_attacks=other_attacks)]
    if not found:
        raise LeaderboardError(
            f"{results.folder} follows the protocol of no board; --board NAME says how it differs from that one, "
            "and robustvid attack --board NAME follows it"
        )
    return found[0]


def _parameters(source: str) -> int:
    import robustvid as rv

    return sum(parameter.numel() for parameter in rv.load_model(source).parameters())


def _tell_faults(faults: dict[str, list[str]]) -> None:
    from robustvid.errors import LeaderboardError

    lines = [f"{name}: {fault}" for name, found in faults.items() for fault in found]
    if not lines:
        return
    for line in lines:
        click.echo(line, err=True)
    raise LeaderboardError(f"{len(lines)} fault{'s' if len(lines) > 1 else ''}, the first: {lines[0]}")
