"""A card sets keyword arguments of one function, and every mistake in it is named."""

from pathlib import Path

import pytest

import robustvid as rv
from robustvid.errors import CardError, UnknownNameError
from robustvid.evaluation.cards import as_attack, list_batteries, list_cards

GOOD = 'title = "t"\nversion = 1\nattack = "pgd"\n'


def write(text, name="mine.toml"):
    Path(name).write_text(text)
    return name


def test_every_shipped_card_and_battery_loads():
    assert {"fgsm", "pgd", "mi-fgsm"} <= set(list_cards())
    for name in list_cards():
        attack = rv.load_attack(name)
        assert attack.title
        assert attack.paper
        assert attack.access
        assert attack.version >= 1
    for name in list_batteries():
        assert rv.load_battery(name).attacks


def test_an_older_battery_stays_loadable_under_its_version():
    newest = rv.load_battery("standard")
    assert rv.load_battery(f"standard@{newest.version}") == newest
    first = rv.load_battery("standard@1")
    assert (first.name, first.version) == ("standard", 1)
    assert [attack.key for attack in first.attacks] != [attack.key for attack in newest.attacks]
    for name in ("standard@7", "standard@", "standart@1"):
        with pytest.raises(UnknownNameError, match="Did you mean 'standard"):
            rv.load_battery(name)


def test_the_key_follows_what_could_change_a_result():
    pgd = rv.load_attack("pgd")
    assert rv.load_attack("pgd", steps=20).key == pgd.key  # the same value, written out
    assert rv.load_attack("pgd:steps=21").key != pgd.key
    assert rv.load_attack(write(GOOD + "[params]\nsteps = 20\nstep_size = 0.2")).key == pgd.key  # same values, own file
    assert rv.load_attack(write(GOOD.replace("= 1", "= 2"))).key != pgd.key
    assert as_attack(lambda model, clips, labels, budget, seeds: clips).key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "step = 3", "unknown key 'step'"),
        (GOOD + "[params]\nstep = 3", "no parameter 'step'. Did you mean 'steps'.*pgd takes: steps"),
        (GOOD + '[params]\nsteps = "many"', "wants an int"),
        (GOOD + "[params]\nsteps = true", "wants an int"),
        (GOOD + "[params]\nstep_size = nan", "step_size = nan; a number that is not finite"),
        ('title = "t"\nattack = "pgd"', "'version' is missing"),
        (GOOD.replace("= 1", '= "1"'), "an int is wanted"),
        ("title = ", "is not TOML"),
        (GOOD + 'cards = ["fgsm@1"]', "is a battery"),
    ],
)
def test_a_bad_card_is_refused_in_words(text, message):
    with pytest.raises(CardError, match=message):
        rv.load_attack(write(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('title = "t"\nversion = 1\ncards = ["fgsm@7"]', "fgsm version 7, but its card is version 1"),
        ('title = "t"\nversion = 1\ncards = ["fgsm"]', "card@version"),
        ('title = "t"\nversion = 1\ncards = []', "no cards"),
        ('title = "t"\nversion = 1\ncards = ["fgsm@1"]\nsteps = 3', "unknown key 'steps'"),
    ],
)
def test_a_bad_battery_is_refused_in_words(text, message):
    with pytest.raises(CardError, match=message):
        rv.load_battery(write(text))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pdg", "Did you mean 'pgd'"),
        ("none.toml", "no card file"),
        ("no_such_module:attack", "no module named"),
        ("pgd:steps", "write settings as pgd:name=value,name=value"),
        ("pgd:steps=5:restarts=2", "write settings as pgd:name=value,name=value"),
        ("robustvid.attacks.pgd:pdg", "Did you mean 'pgd'"),
    ],
)
def test_unknown_attacks_are_refused_with_a_suggestion(name, message):
    with pytest.raises(UnknownNameError, match=message):
        rv.load_attack(name)


def test_functions_and_files_are_attacks(tiny_model):
    Path("mine.py").write_text(
        "def shift(model, clips, labels, budget, seeds, *, by=0.01):\n    return (clips + by).clamp(0, 1)\n"
    )
    attack = rv.load_attack("mine.py:shift", by=0.02)
    assert attack.name == "shift:by=0.02"
    with pytest.raises(CardError, match="no parameter 'to'"):
        rv.load_attack("mine.py:shift:to=3")
    with pytest.raises(CardError, match="five inputs"):
        rv.load_attack("robustvid.budget:parse_radius")
    with pytest.raises(CardError, match="is not an attack function"):
        rv.load_attack("robustvid.budget:SLACK")
    with pytest.raises(UnknownNameError, match="Did you mean 'quick'"):
        rv.load_battery("quik")
