"""What would one more attack break of what stands on a board?

    python -m benchmarks.leftover --board motion10-l2 --model conv3d-pgd --attacks apgd-shrink apgd-ce apgd-t

Every clip of an entry is attacked again at the largest radius of each threat at which it still stands, with a seed that
the board has not used, by each of the attacks alone. A clip is broken if it is in [0, 1], in the budget and
misclassified by the model itself; attacks climb its folded twin, which answers alike.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import robustvid as rv
from benchmarks import command_line
from benchmarks.models import BATCH, as_clip
from robustvid.contracts import frozen, in_lanes
from robustvid.evaluation.machine import full_float32, keep_freed_memory, pick_device
from robustvid.evaluation.probe import Probe, lanes_on
from robustvid.evaluation.results import Results, wilson
from robustvid.leaderboard.boards import load_board
from robustvid.leaderboard.checking import find_entry
from robustvid.models.fold import fold

ATTACKS = ["apgd-ce", "apgd-dlr", "apgd-t", "fmn", "apgd-shrink"]


class Edge(NamedTuple):
    """A clip at the largest radius at which it stands: its place in the dataset, and the place of the budget."""

    index: int
    cell: int


class Told(NamedTuple):
    """Which clips an attack breaks, bool ``(B,)``, and the forwards and backwards that it spends on a clip."""

    broken: Tensor
    passes: float


def edges(results: Results, threat: int) -> list[Edge]:
    """Return the clips that stand somewhere, each at its largest such budget."""
    verdicts = results.verdicts(results.threats[threat])
    indices = {row.sample: row.index for row in results.rows}
    budgets = [budget.describe() for budget in results.plan.threats[threat].budgets]
    stands = verdicts[budgets].to_numpy(dtype=bool)
    return [
        Edge(indices[sample], int(row.nonzero()[0][-1]))
        for sample, row in zip(verdicts["sample"], stands, strict=True)
        if row.any()
    ]


def attacked(model: rv.VideoClassifier, clips: Tensor, labels: Tensor, budget: rv.Budget, attack: rv.Attack) -> Told:
    """Attack every clip in its own budget."""
    probe, seeds = Probe(fold(model), lanes_on(clips.device)), 1_000_000 + torch.arange(len(clips))
    broken = []
    with frozen(model), frozen(probe), full_float32():
        for part in torch.arange(len(clips), device=clips.device).split(BATCH):
            own = budget.select(part)
            found = attack(probe, clips[part], labels[part], own, seeds[part.cpu()])
            allowed = (
                (own.size(found - clips[part]) <= 1) & (found >= 0).all((1, 2, 3, 4)) & (found <= 1).all((1, 2, 3, 4))
            )
            with torch.no_grad():
                wrong = in_lanes(model, found, probe.lanes).argmax(1) != labels[part]
            broken.append(allowed & wrong)
    return Told(torch.cat(broken), (probe.forwards + probe.backwards) / len(clips))


def main() -> None:
    """Measure one entry and print a table for every threat."""
    parser = command_line("leftover", __doc__)
    parser.add_argument("--board", default="motion10-l2")
    parser.add_argument("--model", default="conv3d-pgd", help="its entry, a model of the zoo")
    parser.add_argument("--attacks", nargs="+", default=ATTACKS)
    parser.add_argument("--clips", type=int, help="of each threat at most  [default: all]")
    given = parser.parse_args()
    keep_freed_memory()
    device, board = pick_device(None), load_board(given.board)
    results = find_entry(board, given.model).results
    model, data = rv.load_model(given.model).to(device), rv.load_data(board.data, split=board.split)
    for number, threat in enumerate(results.plan.threats):
        chosen = edges(results, number)[: given.clips]
        samples = [data.sample(edge.index, model.card.clip) for edge in chosen]
        clips = torch.cat([as_clip(sample.frames) for sample in samples]).to(device)
        labels = torch.tensor([sample.label for sample in samples], device=device)
        budget = threat.batch([edge.cell for edge in chosen], model.card.clip.length)
        print(
            f"\n{given.model} on {board.name}, {threat.name}: {len(chosen)} clips, each at the largest radius at which"
        )
        print(f"{results.spec['battery']} left it standing\n\n| attack | passes a clip | broken |\n|---|---|---|")
        union = torch.zeros_like(labels, dtype=torch.bool)
        for name in given.attacks:
            told = attacked(model, clips, labels, budget, rv.load_attack(name))
            union |= told.broken
            print(f"| {name} | {told.passes:.0f} | {share(int(told.broken.sum()), len(chosen))} |", flush=True)
        print(f"| any of them | | {share(int(union.sum()), len(chosen))} |", flush=True)


def share(count: int, n: int) -> str:
    """Return a count with its share and a 95 % interval."""
    low, high = wilson(count, n)
    return f"{count} ({100 * count / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}])"


if __name__ == "__main__":
    main()
