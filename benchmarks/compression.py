"""What compression does to robustness: conv3d-pgd pruned, quantised and distilled, as a table.

python -m benchmarks.compression                  # makes what is missing under runs/compression, then measures
python -m benchmarks.compression --only kd int8   # some of it
python -m benchmarks.compression --make           # makes, and measures nothing
python -m benchmarks.compression --only rslad --ship    # makes it a model of the zoo, conv3d-rslad
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from scipy.stats import binomtest

import robustvid as rv
from benchmarks import command_line
from robustvid.cli.compress import comparison_table
from robustvid.cli.progress import sweep_progress
from robustvid.compression.compare import Row, compare
from robustvid.compression.export import export
from robustvid.compression.prune import learn_masks, prune_channels, prune_weights
from robustvid.data.batches import evaluation_batches
from robustvid.evaluation.machine import keep_freed_memory
from robustvid.models import WEIGHTS
from robustvid.models.checkpoint import save_checkpoint
from robustvid.reporting.pareto import write_pareto
from robustvid.training.progress import training_progress

PARENT, THREAT = "conv3d-pgd", "linf frame 8/255"
PGD = "pgd:steps=5,step_size=0.3"
STUDENT = 0.3  # share of the channels that students lack: less than half of the parameters are left


def plan(objective: str, epochs: int, *, keep_zeros: bool = False) -> rv.TrainingPlan:
    """Return how a compressed model is trained: as its parent was."""
    return rv.TrainingPlan(
        epochs, objective=objective, threats=(THREAT,), roll=True, in_memory=True, keep_zeros=keep_zeros
    )


def trained(start: rv.VideoClassifier, how: rv.TrainingPlan, out: Path) -> None:
    """Train further in ``out``, or go on where that was stopped."""
    with training_progress(how.epochs) as progress:
        rv.train(start, rv.load_data("motion10", split="train"), how, out=out, name=out.name, progress=progress)


def smallest(amount: float, epochs: int, scope: str = "global") -> Callable[[rv.VideoClassifier, Path], None]:
    """Return a recipe: the smallest weights become zero, of all or of each layer, the rest is trained further."""
    return lambda parent, out: trained(
        prune_weights(parent, amount, scope=scope), plan(PGD, epochs, keep_zeros=True), out
    )


def learnt(parent: rv.VideoClassifier, out: Path) -> None:
    """90 % of the weights of each layer become zero by learnt scores, the rest is trained further."""
    masks, data = out.with_name(f"{out.name}-masks"), rv.load_data("motion10", split="train")
    with training_progress(4) as progress:
        pruned = learn_masks(parent, data, 0.9, plan(PGD, 4), out=masks, progress=progress)
    trained(pruned, plan(PGD, 8, keep_zeros=True), out)


def student(objective: str) -> Callable[[rv.VideoClassifier, Path], None]:
    """Return a recipe: the parent without some of its channels learns from the whole one."""
    return lambda parent, out: trained(prune_channels(parent, STUDENT), plan(objective, 8), out)


def int8(parent: rv.VideoClassifier, out: Path) -> None:
    """Static int8 for OpenVINO, its scales from 300 training clips."""
    if not out.is_dir():
        batches = evaluation_batches(rv.load_data("motion10", split="train"), parent.card.clip, 300)
        export(parent, out, precision="int8", calibration=torch.cat([clips for clips, _ in batches]))


RECIPES: Mapping[str, Callable[[rv.VideoClassifier, Path], None]] = {
    "channels-50": lambda parent, out: trained(prune_channels(parent, 0.5), plan(PGD, 8), out),
    "weights-90": smallest(0.9, 8),
    "weights-90-layer": smallest(0.9, 8, "layer"),
    "learnt-90": learnt,
    "kd": student(f"kd:teacher={PARENT}"),
    "ard": student(f"ard:teacher={PARENT},steps=5,step_size=0.3"),
    "rslad": student(f"rslad:teacher={PARENT},steps=5,step_size=0.3"),
    "weights-50": smallest(0.5, 4),
    "weights-80": smallest(0.8, 4),
    "int8": int8,
}


PAIRS = (
    ("learnt-90", "weights-90-layer"),
    ("learnt-90", "weights-90"),
    ("rslad", "kd"),
    ("ard", "kd"),
    ("rslad", PARENT),
    ("ard", PARENT),
    ("channels-50", PARENT),
)


def paired(rows: list[Row]) -> str:
    """Return for pairs of models how many clips stand for one alone, with McNemar's exact p, not corrected."""
    stands = {}
    for row in rows:
        run = rv.Results(row.runs[0])
        verdicts = run.verdicts(run.threats[0]).set_index("sample")
        stands[row.name] = verdicts[rv.Budget.parse(THREAT).describe()].astype(bool)
    lines = []
    for one, other in PAIRS:
        if one in stands and other in stands:
            ours, theirs = stands[one], stands[other].loc[stands[one].index]
            won, lost = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
            p = binomtest(won, won + lost).pvalue if won + lost else 1.0
            lines.append(f"{one} against {other}: {won} clips to {lost}, p = {p:.2g}")
    return "\n".join(lines)


def ship(name: str, made: Path) -> None:
    """Put a compressed model into the zoo, with the command in its lineage."""
    model = rv.load_model(made)
    *before, last = model.card.lineage
    command = {"command": f"python -m benchmarks.compression --only {name} --ship"}
    model.card = replace(model.card, name=f"conv3d-{name}", lineage=(*before, command | dict(last)))
    save_checkpoint(model, WEIGHTS / model.card.name)


def main() -> None:
    """Make what is missing, and measure or ship."""
    parser = command_line("compression", __doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/compression"))
    parser.add_argument("--only", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--make", action="store_true", help="make what is missing, and measure nothing")
    parser.add_argument("--ship", action="store_true", help="make what is missing, and put it into the zoo")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1, help="to time with")
    parser.add_argument("--battery", default="standard")
    asked = parser.parse_args()
    keep_freed_memory()
    for name in asked.only:
        RECIPES[name](rv.load_model(PARENT), asked.runs / name)
    for name in asked.only if asked.ship else ():
        ship(name, asked.runs / name)
    if asked.make or asked.ship:
        return
    models = {PARENT: rv.load_model(PARENT)} | {name: rv.load_model(asked.runs / name) for name in asked.only}
    with sweep_progress() as progress:
        rows = compare(
            models,
            rv.load_data("motion10", split="test"),
            rv.Budget.parse(THREAT),
            battery=rv.load_battery(asked.battery),
            limit=asked.clips,
            threads=asked.threads,
            progress=progress,
        )
    Console(width=40 + 26 * len(rows)).print(comparison_table(rows, THREAT))
    print(paired(rows))
    print(*write_pareto([row.facts() for row in rows], f"{rows[0].n} test clips of motion10, {THREAT}", asked.runs))


if __name__ == "__main__":
    main()
