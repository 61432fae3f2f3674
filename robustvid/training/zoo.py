"""How each model of the zoo is made: ``python -m robustvid.training.zoo NAME...``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from rich.console import Console

from robustvid.contracts import ClipSpec, ModelCard
from robustvid.data import load_data
from robustvid.models import WEIGHTS
from robustvid.models.checkpoint import save_checkpoint
from robustvid.models.classifier import VideoClassifier, new_classifier
from robustvid.training.accuracy import clean_accuracy
from robustvid.training.loop import TrainingPlan, train

CLIP = ClipSpec(frames=8, stride=2, size=(64, 64))


@dataclass(frozen=True)
class Recipe:
    """How one model is made from motion10.

    Attributes:
        arch: name of the architecture.
        plan: how it is trained.
        options: keyword arguments of the architecture, written out because defaults may change and weights do not.
        clip: what it is trained on.
    """

    arch: str
    plan: TrainingPlan
    options: Mapping[str, Any]
    clip: ClipSpec = CLIP


MEAN, STD = (0.40, 0.40, 0.41), (0.16, 0.15, 0.17)  # of the pixels of motion10's training split

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "conv3d": Recipe("conv3d", TrainingPlan(epochs=10, roll=True, in_memory=True), {"widths": [8, 32, 64, 96]}),
        "frame_rnn": Recipe(
            "frame_rnn",
            TrainingPlan(epochs=20, roll=True, in_memory=True),
            {"cell": "gru", "widths": [16, 32, 48, 64], "hidden": 96},
        ),
        "frame_pool": Recipe(
            "frame_pool",
            TrainingPlan(epochs=10, roll=True, in_memory=True),
            {"pooling": "temporal_average", "widths": [16, 32, 64, 96]},
        ),
    }
)


def make(name: str, recipe: Recipe) -> VideoClassifier:
    """Train one model on motion10, from weights drawn with the plan's seed.

    Args:
        name: what the card will call it.
        recipe: how to make it.
    """
    data = load_data("motion10", split="train")
    card = ModelCard(name, recipe.arch, tuple(data.classes), recipe.clip, MEAN, STD, recipe.options)
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.plan.seed)
        model = new_classifier(card)
    return train(model, data, recipe.plan)


def ship(name: str, folder: Path) -> None:
    """Make one model of the zoo and save it in ``folder``, with the command in its lineage."""
    model = make(name, RECIPES[name])
    made = {"command": f"python -m robustvid.training.zoo {name}", **model.card.lineage[-1]}
    model.card = replace(model.card, lineage=(made,))
    save_checkpoint(model, folder)
    correct, n = clean_accuracy(model, load_data("motion10", split="test"))
    Console().print(f"{name}: {correct} of {n} test clips, saved in {folder}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the models named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m robustvid.training.zoo", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", choices=sorted(RECIPES), help=", ".join(sorted(RECIPES)))
    for name in parser.parse_args(arguments).names:
        ship(name, WEIGHTS / name)


if __name__ == "__main__":
    main()
