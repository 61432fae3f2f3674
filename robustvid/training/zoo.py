"""How each model of the zoo is made: ``python -m robustvid.training.zoo NAME...``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from rich.console import Console

from robustvid.contracts import ClipSpec, ModelCard
from robustvid.data import load_data
from robustvid.models import WEIGHTS, load_model
from robustvid.models.checkpoint import save_checkpoint
from robustvid.models.classifier import VideoClassifier, new_classifier
from robustvid.training.accuracy import clean_accuracy
from robustvid.training.loop import train
from robustvid.training.plan import TrainingPlan
from robustvid.training.progress import training_progress

CLIP = ClipSpec(frames=8, stride=2, size=(64, 64))


@dataclass(frozen=True)
class Recipe:
    """How one model is made from motion10.

    Attributes:
        plan: how it is trained.
        arch: name of the architecture, for a model that starts untrained.
        options: keyword arguments of the architecture, written out because defaults may change and weights do not.
        clip: what it is trained on.
        start: model of the zoo that it starts from instead.
    """

    plan: TrainingPlan
    arch: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    clip: ClipSpec = CLIP
    start: str = ""


MEAN, STD = (0.40, 0.40, 0.41), (0.16, 0.15, 0.17)  # of the pixels of motion10's training split
LINF, L2 = "linf frame 8/255", "l2 clip 2.0"


def _natural(epochs: int) -> TrainingPlan:
    return TrainingPlan(epochs, holdout=0, roll=True, in_memory=True)


def _robust(objective: str, epochs: int, *threats: str, **settings: Any) -> TrainingPlan:
    """Return the plan of a model that is made robust, by default to 8/255 in every frame."""
    return TrainingPlan(epochs, objective=objective, threats=threats or (LINF,), roll=True, in_memory=True, **settings)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "conv3d": Recipe(_natural(10), "conv3d", {"widths": [8, 32, 64, 96]}),
        "frame_rnn": Recipe(_natural(20), "frame_rnn", {"cell": "gru", "widths": [16, 32, 48, 64], "hidden": 96}),
        "frame_pool": Recipe(_natural(10), "frame_pool", {"pooling": "temporal_average", "widths": [16, 32, 64, 96]}),
        "conv3d-fgsm": Recipe(_robust("n-fgsm", 12), start="conv3d"),
        "conv3d-pgd": Recipe(_robust("pgd:steps=5,step_size=0.3", 8), start="conv3d"),
        "conv3d-trades": Recipe(_robust("trades:steps=5,step_size=0.3", 8), start="conv3d"),
        "conv3d-mart": Recipe(_robust("mart:steps=5,step_size=0.3", 8), start="conv3d"),
        "conv3d-free": Recipe(_robust("free:replays=4", 5), start="conv3d"),
        "conv3d-curriculum": Recipe(_robust("pgd:steps=5,step_size=0.3", 8, schedule="curriculum"), start="conv3d"),
        "conv3d-adaptive": Recipe(_robust("pgd:steps=5,step_size=0.3", 8, schedule="adaptive"), start="conv3d"),
        "conv3d-multi": Recipe(_robust("pgd:steps=5,step_size=0.3", 8, LINF, L2, mix="random"), start="conv3d"),
        "frame_rnn-pgd": Recipe(_robust("pgd:steps=5,step_size=0.3", 8), start="frame_rnn"),
    }
)


def make(name: str, recipe: Recipe) -> VideoClassifier:
    """Train one model on motion10, from weights drawn with the plan's seed or from those of another model.

    Args:
        name: what the card will call it.
        recipe: how to make it.
    """
    data = load_data("motion10", split="train")
    if recipe.start:
        model = load_model(recipe.start)
    else:
        card = ModelCard(name, recipe.arch, tuple(data.classes), recipe.clip, MEAN, STD, recipe.options)
        with torch.random.fork_rng([]):
            torch.manual_seed(recipe.plan.seed)
            model = new_classifier(card)
    with training_progress(recipe.plan.epochs) as progress:
        return train(model, data, recipe.plan, name=name, progress=progress)


def ship(name: str, folder: Path) -> None:
    """Make one model of the zoo and save it in ``folder``, with the command in its lineage."""
    model = make(name, RECIPES[name])
    *before, last = model.card.lineage
    made = {"command": f"python -m robustvid.training.zoo {name}", **last}
    model.card = replace(model.card, lineage=(*before, made))
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
