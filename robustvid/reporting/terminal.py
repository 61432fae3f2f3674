"""A run on the terminal: tables of robust accuracy, what broke what, flags and cost."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustvid.evaluation.results import LEFT_OUT, Results
from robustvid.reporting.flags import meaning
from robustvid.reporting.panels import rows

_BAR = 8  # cells
_LEFT_OUT = 5  # videos that are named
_NAMED = 8  # attacks that are listed one by one
_EIGHTHS = " ▏▎▍▌▋▊▉"


def print_results(results: Results, console: Console) -> None:
    """Print a run: a table for every threat, what was flagged and what it cost.

    Args:
        results: the run, complete or not.
        console: where to print; it knows the width and whether colour is wanted (``NO_COLOR`` is obeyed).
    """
    console.print(_heading(results))
    for threat in results.threats:
        console.print()
        console.print(_table(results, threat))
    console.print()
    for flag in results.flags:
        console.print(_flag(flag))
    if results.audit["checked"]:
        console.print(Text(skipping(results), style="dim"))
    console.print(Text(_cost(results), style="dim"))


def skipping(results: Results) -> str:
    """Return in words what the audit of skipped measurements found."""
    audit = results.audit
    interval = f"{100 * audit['rate']:.1f} % [{100 * audit['lo']:.1f}, {100 * audit['hi']:.1f}]"
    share = f"{audit['checked']:,} of {audit['skipped']:,} skipped measurements made after all"
    return f"{share}: {audit['wrong']} broke the clip, {interval}"


def _heading(results: Results) -> Text:
    spec, clean = results.spec, results.clean
    text = Text(f"{results.subject} on {spec['data']['name']}", style="bold")
    text.append(f", {spec['data']['split']} split, {results.n} clips: clean accuracy ", style="not bold")
    text.append(f"{100 * clean['acc']:.1f} %", style="bold")
    text.append(f" [{100 * clean['lo']:.1f}, {100 * clean['hi']:.1f}]", style="not bold dim")
    if results.left_out:
        asked = spec["data"]["clips"]
        text.append(f"\n{len(results.left_out)} of {asked} videos cannot be read and are left out:", style="yellow")
        for left in results.left_out[:_LEFT_OUT]:
            text.append(f"\n  {left['file']}: {left['reason']}", style="not bold dim")
        if len(results.left_out) > _LEFT_OUT:
            text.append(f"\n  and more, all in {results.folder / LEFT_OUT}", style="not bold dim")
    if not results.complete:
        text.append(f"\nnot complete: {results.n} of {spec['data']['clips']} clips were looked at", style="yellow")
    return text


def _table(results: Results, threat: str) -> Table:
    names = results.attacks
    title = f"{threat}: worst case of {', '.join(names) if len(names) <= _NAMED else f'{len(names)} attacks'}"
    table = Table(title=Text(title), title_justify="left", title_style="", box=None, padding=(0, 1), pad_edge=False)
    table.add_column("budget", no_wrap=True)
    table.add_column("robust", justify="right", no_wrap=True)
    table.add_column("95 %", style="dim", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("clips", justify="right", no_wrap=True)
    table.add_column("broken by", style="dim", overflow="fold")
    lines = results.table()
    breakers = _breakers(results, threat)
    for line, broken in zip(rows(lines[lines.threat == threat]), breakers, strict=True):
        interval = f"[{line.lo:.1f}, {line.hi:.1f}]"
        budget = line.budget.partition(" ")[2] or line.budget  # the norm is in the title
        known = [f"{line.acc:.1f} %", interval, _bar(line.acc)] if line.n else ["–", "", ""]
        table.add_row(*map(Text, [budget, *known, f"{line.correct}/{line.n}", broken]))
    return table


def _breakers(results: Results, threat: str) -> list[str]:
    """Return for the clean clips and for every budget which attack broke how many."""
    counts = results.broken_by(threat)
    cells = zip(*counts.values(), strict=True)
    return ["", *(_listed([f"{n}×{name}" for name, n in zip(counts, cell, strict=True) if n]) for cell in cells)]


def _listed(parts: list[str]) -> str:
    more = len(parts) - _NAMED
    return ", ".join(parts[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _bar(per_cent: float) -> str:
    eighths = round(per_cent / 100 * _BAR * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).ljust(_BAR)


def _flag(flag: dict[str, str]) -> Text:
    text = Text("flag ", style="bold yellow").append(flag["flag"])
    return text.append(f": {flag['detail']}. {meaning(flag['flag'])}", style="not bold default")


def _cost(results: Results) -> str:
    cost = results.cost
    minutes, seconds = divmod(round(cost["seconds"]), 60)
    time = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"{cost['forwards']:,} forwards and {cost['backwards']:,} backwards of clips, {time}; {results.folder}"
