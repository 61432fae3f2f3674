"""Which attack carries over to a model that samples time differently: mi-fgsm or temporal-shift?

    python -m benchmarks.transfer --out FOLDER --seeds 1 2 3
    python -m benchmarks.transfer --out FOLDER --seeds 1 2 3 --fresh 120 --clips 1200

The surrogate is the zoo's ``conv3d``, which looks at every frame. The target is the same network with a stride of two
in time in its first two convolutions, trained here on motion10 once for each seed (a few minutes on a CPU) unless
FOLDER holds it; ``--reverse`` exchanges the two. All attacks run on the surrogate and are judged by the target; the
table counts the clips fooled among those that both models get right, over all targets. ``--fresh`` measures on videos
drawn anew, as many as it takes, where the 400 of the test split cannot tell two attacks apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

import robustvid as rv
from benchmarks import command_line
from robustvid.budget import format_radius
from robustvid.contracts import ModelCard
from robustvid.data.motion10 import FOLDER
from robustvid.data.motion10 import build as build_videos
from robustvid.data.transforms import to_clips
from robustvid.evaluation.results import wilson
from robustvid.models.classifier import VideoClassifier
from robustvid.models.conv3d import build
from robustvid.training.accuracy import clean_accuracy
from robustvid.training.loop import train
from robustvid.training.zoo import MEAN, RECIPES, STD

NAME = "conv3d-stride2"


def strided(classes: tuple[str, ...]) -> VideoClassifier:
    """Return an untrained ``conv3d`` whose first two convolutions step over every other frame."""
    recipe = RECIPES["conv3d"]
    network = build(len(classes), **recipe.options)
    for block in network.features[:2]:
        block[0].stride = (2, 2, 2)
    return VideoClassifier(network, ModelCard(NAME, NAME, classes, recipe.clip, MEAN, STD, recipe.options))


def target(folder: Path, epochs: int, seed: int) -> VideoClassifier:
    """Return the trained target, from ``folder`` where it is there already."""
    data = rv.load_data("motion10", split="train")
    weights = folder / f"{NAME}-{seed}.safetensors"
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = strided(tuple(data.classes))
    if weights.is_file():
        model.load_state_dict(load_file(weights))
        return model.eval()
    model = train(model, data, replace(RECIPES["conv3d"].plan, epochs=epochs, seed=seed))
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
    return model


def right(model: VideoClassifier, data: rv.VideoDataset, places: list[int]) -> set[int]:
    """Return the places of the clips that the model gets right."""
    found = set()
    with rv.frozen(model), torch.no_grad():
        for place in places:
            sample = data.sample(place, model.card.clip)
            if int(model(to_clips([sample.frames])).argmax()) == sample.label:
                found.add(place)
    return found


def fresh(folder: Path, per_class: int | None) -> Path | None:
    """Return the root of a motion10 with so many test videos of each class that nobody has seen; None for the usual."""
    if per_class is None:
        return None
    root = folder / f"fresh-{per_class}"
    if not (root / FOLDER).is_dir():
        build_videos(root / FOLDER, {"train": 0, "test": per_class}, seed=1)
    return root


def main() -> None:
    """Train where needed, attack, and print the table."""
    parser = command_line("transfer", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the targets and the runs")
    parser.add_argument("--attacks", nargs="+", default=["mi-fgsm", "temporal-shift"], metavar="NAME")
    parser.add_argument("--radii", nargs="+", default=["8/255", "12/255", "16/255"], metavar="EPS")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--reverse", action="store_true", help="attack the strided model and measure conv3d")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the targets' trainings")
    parser.add_argument("--fresh", type=int, help="measure on so many new videos of each class, not on the test split")
    given = parser.parse_args()
    conv3d, data = rv.load_model("conv3d"), rv.load_data("motion10", root=fresh(given.out, given.fresh))
    budgets = [rv.Budget("linf", radius) for radius in given.radii]
    pairs = 0  # of a target and a clip that both models get right
    fooled: dict[str, list[set[tuple[int, int]]]] = {name: [set() for _ in budgets] for name in given.attacks}
    for seed in given.seeds:
        other = target(given.out, given.epochs, seed)
        print(f"{NAME}, seed {seed}: {'{} of {}'.format(*clean_accuracy(other, data))} clips right")
        model, surrogate = (conv3d, other) if given.reverse else (other, conv3d)
        way, where = "reverse" if given.reverse else "run", f"fresh{given.fresh}" if given.fresh else "test"
        name = "-".join([way, str(seed), *given.attacks, where, str(given.clips)])
        results = rv.evaluate(
            model,
            data,
            given.attacks,
            budgets,
            surrogate=surrogate,
            limit=given.clips,
            strategy="every",
            out=given.out / name.replace(":", "_"),
        )
        rows = results.frame()
        both = right(surrogate, data, list(rows[(rows.attack == "clean") & rows.robust]["index"]))
        pairs += len(both)
        for attack, sets in fooled.items():
            for known, found in zip(sets, _fooled(rows, attack, results.plan.threats[0].budgets, both), strict=True):
                known |= {(seed, index) for index in found}
    print(f"attacked: {surrogate.card.name}, measured: {model.card.name}")
    print_table(fooled, pairs, [budget.describe() for budget in results.plan.threats[0].budgets])


def print_table(fooled: dict[str, list[set[tuple[int, int]]]], pairs: int, radii: Sequence[str]) -> None:
    """Print how many clips each attack fooled at each radius, of those that both models get right."""
    print(f"{pairs} clips are right in both models; fooled of these, with 95 % Wilson intervals:\n")
    print("| attack | " + " | ".join(radii) + " |")
    print("|---" * (len(radii) + 1) + "|")
    for attack, sets in fooled.items():
        print(f"| {attack} | " + " | ".join(_share(len(clips), pairs) for clips in sets) + " |")
    first, *others = fooled
    for other in others:
        paired = [_alike(ours, theirs) for ours, theirs in zip(fooled[first], fooled[other], strict=True)]
        print(f"| p, {other} and {first} alike | " + " | ".join(f"{p:.3f}" for p in paired) + " |")


def _fooled(rows: pd.DataFrame, attack: str, budgets: Sequence[rv.Budget], both: set[int]) -> list[set[int]]:
    """Return the clips fooled in each budget, smallest first; what fools at a radius lies within every larger one."""
    found: list[set[int]] = []
    for budget in budgets:
        at = (rows.attack == attack) & ~rows.robust & (rows.eps_frame == format_radius(budget.frame))
        found.append((found[-1] if found else set()) | both & set(rows[at]["index"]))
    return found


def _share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count} ({100 * count / n:.0f} %, {100 * low:.0f} to {100 * high:.0f})"


def _alike(ours: set[tuple[int, int]], theirs: set[tuple[int, int]]) -> float:
    """Return the two-sided p-value of a sign-flip test, as a normal distribution has it.

    Its unit is a clip with all its targets: what fools one of them is likely to fool the others.
    """
    gains = Counter(index for _, index in ours)
    gains.subtract(index for _, index in theirs)
    spread = math.sqrt(sum(gain**2 for gain in gains.values()))
    return math.erfc(abs(gains.total()) / spread / math.sqrt(2)) if spread else 1.0


if __name__ == "__main__":
    main()
