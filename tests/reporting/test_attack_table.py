"""attacks/README.md says what the cards say."""

import pytest

from robustvid.evaluation.cards import list_cards, load_attack
from robustvid.registry import shipped_folder
from robustvid.reporting.attack_table import cost, render


def test_the_page_is_current():
    page = (shipped_folder("attacks") / "README.md").read_text(encoding="utf-8")
    assert page == render(), "the cards have changed: make cards"


@pytest.mark.parametrize("name", list_cards())
def test_every_card_has_a_cost_a_source_and_a_kind_of_access(name):
    attack = load_attack(name)
    assert cost(attack), f"the docstring of {attack.target} has no sentence 'Costs ... .'"
    assert attack.paper
    assert attack.title
    assert attack.access in {"white-box", "score", "decision", "blind"}
    assert attack.version >= 1
