"""``attacks/README.md``, written from the cards: ``python -m robustvid.reporting.attack_table``."""

from __future__ import annotations

import inspect
import re

from robustvid.evaluation.cards import Attack, list_batteries, list_cards, load_attack, load_battery
from robustvid.registry import shipped_folder

_INTRODUCTION = """\
# Attack cards and batteries

A card names a setting of one attack function: `title, paper, access, version, attack` and `[params]`, the keyword
arguments of that function and nothing else. A battery lists cards with their versions; its attacks run in order, each
on the clips that still stand. A card's hash travels with every measurement, so a changed card is another experiment:
raise `version` when you change one.

Use one by name (`robustvid attack -a pgd`), with other parameters (`-a pgd:steps=50,restarts=2`), or write your own
file (`-a my/card.toml`). `robustvid list attacks` shows what is installed, the attacks of torchattacks and ART among
it. Update rules are in the docstrings; [docs/attacks.md](../docs/attacks.md) says which attack answers which question.

This page is made from the cards: `make cards` writes it anew.
"""


def render() -> str:
    """Return the page as Markdown."""
    cards = [load_attack(name) for name in list_cards()]
    batteries = [load_battery(name) for name in list_batteries()]
    attacks = [
        f"| {card.name} | {card.access} | {card.version} | {card.title} | {cost(card)} | {card.paper} |"
        for card in cards
    ]
    lists = [
        f"| {b.name} | {b.version} | {b.title} | {', '.join(attack.name for attack in b.attacks)} |" for b in batteries
    ]
    return "\n".join(
        [
            _INTRODUCTION,
            "| card | access | version | what it does | cost of a clip, as the function's docstring has it | source |",
            "|---|---|---|---|---|---|",
            *attacks,
            "",
            "| battery | version | what it is | cards |",
            "|---|---|---|---|",
            *lists,
            "",
        ]
    )


def cost(attack: Attack) -> str:
    """Return the sentence of an attack function's docstring that begins with "Costs", without that word."""
    text = " ".join((inspect.getdoc(attack.function) or "").split())
    found = re.search(r"Costs (.*?)(?:\.\s|\.$|;)", text)
    return found.group(1).replace("|", "\\|") if found else ""


if __name__ == "__main__":
    (shipped_folder("attacks") / "README.md").write_text(render(), encoding="utf-8")
