"""How much of what goes through a model is padding, by the clips in a call and in a wave?

    python -m benchmarks.padding
    python -m benchmarks.padding --lanes 16 32 --waves 64 128 256

The model is always called on the same number of clips, its lanes, and what is missing is padded with grey. Sweeps eight
linf radii with PGD-10, the model as given, and prints what went through it, checks before the attacks included, against
what the attacks asked for. The counts are those of a GPU with as many lanes, whatever runs this.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch import nn

import robustvid as rv
from benchmarks import command_line
from robustvid.evaluation import probe, waves

RADII = (1, 2, 3, 4, 6, 8, 12, 16)  # of 255


def count(
    model: rv.VideoClassifier, clips: int, lanes: int, wave: int, batch: int
) -> tuple[Counter[str], pd.DataFrame]:
    """Sweep, and return what went through the model, and the rows of the run."""
    through: Counter[str] = Counter()

    def note(_model: nn.Module, args: tuple[Any, ...]) -> None:
        way = "backwards" if args[0].requires_grad and torch.is_grad_enabled() else "forwards"
        through.update({way: len(args[0]), "calls": 1})

    hook = model.register_forward_pre_hook(note)
    with (
        tempfile.TemporaryDirectory() as out,
        patch.dict(probe.LANES, cpu=lanes, cuda=lanes),
        patch.dict(waves.WAVE, cpu=wave, cuda=wave),
    ):
        results = rv.evaluate(
            model,
            rv.load_data("motion10"),
            "pgd:steps=10,step_size=0.25,random_start=false",
            [rv.Budget("linf", frame=Fraction(radius, 255)) for radius in RADII],
            limit=clips,
            batch_size=batch,
            precision="exact",
            audit=0,
            keep=0,
            out=out,
        )
        hook.remove()
        return through, results.frame()


def main() -> None:
    """Print a line for every number of lanes and size of the waves."""
    parser = command_line("padding", __doc__)
    parser.add_argument("--model", default="conv3d-pgd")
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--lanes", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--waves", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--batch", type=int, default=128, help="clips that are attacked at once, as on a GPU")
    given = parser.parse_args()
    model = rv.load_model(given.model)
    print(f"{given.model}, {given.clips} clips, calls of attacks with {given.batch}\n")
    print("| lanes | wave | backwards asked | with padding | all passes, with padding | calls of the model |")
    print("|---|---|---|---|---|---|")
    for lanes in given.lanes:
        for wave in given.waves:
            through, rows = count(model, given.clips, lanes, wave, given.batch)
            asked, padded = rows["backwards"].sum(), through["backwards"]
            passes = 2 * padded + through["forwards"]
            print(f"| {lanes} | {wave} | {asked:,.0f} | {padded / asked:.2f} | {passes:,} | {through['calls']:,} |")


if __name__ == "__main__":
    main()
