"""A short adversarial training of ``conv3d`` on motion10, for measurements that need a model which resists.

    python -m benchmarks.adversarial_training OUT

Madry et al., arXiv:1706.06083: every step is taken on clips attacked with PGD inside linf 8/255, in evaluation mode,
and ε rises linearly over the first third of the training. Not a model of the zoo: one seed, no selection.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track

import robustvid as rv
from benchmarks import command_line
from robustvid.attacks.pgd import pgd
from robustvid.contracts import ModelCard, frozen
from robustvid.data.batches import load_videos, training_batches
from robustvid.evaluation.machine import keep_freed_memory
from robustvid.models.checkpoint import save_checkpoint
from robustvid.models.classifier import VideoClassifier, new_classifier
from robustvid.training.accuracy import clean_accuracy
from robustvid.training.zoo import MEAN, RECIPES, STD

EPS = Fraction(8, 255)


def train(epochs: int, steps: int, batch_size: int = 32, lr: float = 5e-3, seed: int = 0) -> VideoClassifier:
    """Return ``conv3d`` trained against PGD with ``steps`` steps."""
    data = rv.load_data("motion10", split="train")
    recipe = RECIPES["conv3d"]
    torch.manual_seed(seed)
    model = new_classifier(
        ModelCard("conv3d-at", "conv3d", tuple(data.classes), recipe.clip, MEAN, STD, recipe.options)
    )
    model.surrogate = True  # attacks then spend all their steps on a clip instead of stopping at its first fall
    videos, batches = load_videos(data), math.ceil(len(data) / batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * batches)
    step_size = max(0.35, 1.25 / steps)
    for epoch in track(range(epochs), "training"):
        for number, (clips, labels) in enumerate(
            training_batches(videos, recipe.clip, batch_size, seed, epoch, roll=True)
        ):
            done = (epoch + number / batches) / epochs
            budget = rv.Budget("linf", float(EPS) * min(1.0, 3 * done))
            seeds = torch.arange(len(clips)) + 100_000 * epoch + 1_000 * number
            with frozen(model):
                attacked = pgd(model, clips, labels, budget, seeds, steps=steps, step_size=step_size)
            loss = F.cross_entropy(model.train()(attacked), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    made = {"step": "train", "command": f"python -m benchmarks.adversarial_training --epochs {epochs} --steps {steps}"}
    model.card = replace(model.card, lineage=(made,))
    return model.eval()


def main() -> None:
    """Train and save."""
    parser = command_line("adversarial_training", __doc__)
    parser.add_argument("out", type=Path, help="checkpoint folder")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    keep_freed_memory()
    model = train(given.epochs, given.steps)
    save_checkpoint(model, given.out)
    correct, n = clean_accuracy(model, rv.load_data("motion10", split="test"))
    print(f"clean {correct} of {n} test clips; saved in {given.out}")


if __name__ == "__main__":
    main()
