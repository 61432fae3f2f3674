"""The terminal report: numbers, width, colour and names that are markup."""

import io

from rich.console import Console

import robustvid as rv
from robustvid.reporting.panels import panels
from robustvid.reporting.terminal import print_results


def printed(results, width=80, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    print_results(results, console)
    return console.file.getvalue()


def test_every_budget_has_a_line_with_interval_and_counts(results):
    text = printed(results)
    for row in results.table().itertuples():
        assert f"{row.acc:.1f} %  [{row.lo:.1f}, {row.hi:.1f}]" in text
        assert f"{row.correct}/{row.n}" in text
    assert f"{results.cost['forwards']:,} forwards" in text


def test_it_says_which_attack_broke_how_many(results):
    counts = results.broken_by("linf-frame")
    line = next(line for line in printed(results, width=120).splitlines() if "4/255" in line)
    assert f"{counts['fgsm'][-1]}×fgsm" in line


def test_eighty_columns_are_enough(results, surface):
    for run in (results, surface):
        assert max(map(len, printed(run).splitlines())) <= 80


def test_no_color_is_obeyed(results, monkeypatch):
    assert "\x1b[" in printed(results, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    coloured = ("\x1b[3", "\x1b[9")
    assert not any(code in printed(results, force_terminal=True) for code in coloured)


def test_flags_come_with_what_was_seen_and_what_it_means(other):
    text = printed(other, width=200)
    assert [flag["flag"] for flag in other.flags] == ["no-better-than-chance"]
    assert other.flags[0]["detail"] in text
    assert "guessing" in text


def test_names_are_not_read_as_markup(hostile):
    assert "[red]" in printed(hostile)


def test_unfinished_runs_say_so(partial, unmeasured):
    assert "not complete" in printed(partial)
    assert "–" in printed(unmeasured)


def test_many_attacks_are_counted_and_not_drawn(measure):
    names = [f"corruption:kind={kind},severity={s}" for kind in ("jpeg", "contrast", "freeze") for s in range(1, 6)]
    run = measure("many", [*names, "fgsm", "pgd:steps=2"], [rv.Budget("linf", 1.0)])
    text = printed(run, width=100)
    assert "linf-frame: worst case of 17 attacks" in text
    assert max(map(len, text.splitlines())) <= 100
    (panel,) = panels(run)
    assert [line.name for line in panel.lines] == ["worst"]
