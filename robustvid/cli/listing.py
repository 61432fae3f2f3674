"""``robustvid list``: what there is to name."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "list",
    epilog="""\b
Examples:
  robustvid list attacks
  robustvid list runs
""",
)
@click.argument("noun", type=click.Choice(["models", "data", "attacks", "runs"]))
def list_command(noun: str) -> None:
    """List the models, datasets, attacks or runs that can be named."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    for header, lines in [_TABLES[noun](), *(more() for more in _MORE.get(noun, ()))]:
        table = Table(*header, box=None, pad_edge=False)
        table.columns[0].no_wrap = True
        for line in lines:
            table.add_row(*map(Text, line))
        Console().print(table if lines else f"no {noun} here")


_Lines = tuple[list[str], list[list[str]]]


def _models() -> _Lines:
    from robustvid.models import load_model, zoo

    cards = [load_model(name) for name in zoo()]
    lines = [
        [
            model.card.name,
            model.card.arch,
            f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M",
            f"{model.card.clip.frames}x{model.card.clip.size[0]}x{model.card.clip.size[1]}",
            str(len(model.card.classes)),
        ]
        for model in cards
    ]
    return ["Model", "Architecture", "Parameters", "Clip", "Classes"], lines


def _foreign_models() -> _Lines:
    """Return the models of other libraries, from tables that need neither library."""
    from robustvid.models import huggingface, torchvision

    lines = [
        [f"torchvision:{name}", f"{frames} frames, stride {stride}"]
        for name, (frames, stride) in torchvision.PROTOCOLS.items()
    ]
    lines += [
        ["hf:FOLDER", f"{name} of Hugging Face, stride {family.stride}"]
        for name, family in huggingface.FAMILIES.items()
    ]
    return ["Of other libraries", "What it is; docs/models.md shows the options"], lines


def _data() -> _Lines:
    import inspect

    from robustvid.data import DATASETS

    lines = [
        [name, (inspect.getdoc(DATASETS.load(name)) or "").partition("\n")[0].replace("``", "")]
        for name in DATASETS.names()
    ]
    return ["Dataset", "What it is; docs/data.md shows its folders"], lines


def _attacks() -> _Lines:
    from robustvid.evaluation.cards import list_batteries, list_cards, load_attack, load_battery

    cards = [load_attack(name) for name in list_cards()]
    batteries = [(name, load_battery(name)) for name in list_batteries()]
    lines = [[card.name, card.access, card.title, card.paper] for card in cards]
    lines += [[name, "battery", b.title, ", ".join(attack.name for attack in b.attacks)] for name, b in batteries]
    return ["Attack", "Access", "What it does", "Source"], lines


def _second_opinions() -> _Lines:
    """Return every attack of the other libraries, from tables that need neither library."""
    from robustvid.attacks import LIBRARIES

    lines = []
    for library in map(LIBRARIES.load, LIBRARIES.names()):
        usable = {name: (", ".join(entry.norms), entry.describe()) for name, entry in library.usable.items()}
        refused = {name: ("refused", reason) for name, reason in library.refused.items()}
        lines += [[f"{library.name}:{name}", *about] for name, about in (*usable.items(), *refused.items())]
    return ["Second opinion", "Norms", "What it is shown, or why it is refused"], lines


def _runs() -> _Lines:
    from robustvid.errors import RobustvidError
    from robustvid.evaluation.results import Results
    from robustvid.evaluation.spec import read_spec
    from robustvid.training.state import read_history

    lines = []
    for path in sorted(Path("runs").glob("*/spec.json")):
        try:
            spec = read_spec(path.parent)
            if spec.get("kind") == "training":
                history, epochs = read_history(path.parent), spec["plan"]["epochs"]
                lines.append([path.parent.name, "", "", f"training, {len(history)} of {epochs} epochs"])
                continue
            results = Results(path.parent)
            state = "complete" if results.complete else "partial"
            lines.append([path.parent.name, str(results.n), f"{100 * results.clean['acc']:.1f} %", state])
        except RobustvidError as error:
            lines.append([path.parent.name, "", "", str(error)])
    return ["Run", "Clips", "Clean", "State"], lines


_TABLES = {"models": _models, "data": _data, "attacks": _attacks, "runs": _runs}
_MORE = {"models": (_foreign_models,), "attacks": (_second_opinions,)}
