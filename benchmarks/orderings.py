"""Orderings that must hold on any video model: more steps, unions, frames, norms, block shapes, order of frames.

    python -m benchmarks.orderings --out orderings

Each line is a claim, what was measured, and whether it holds on these clips. Runs are kept in ``--out``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import robustvid as rv
from benchmarks import command_line
from robustvid.evaluation.results import Results

LINF = [rv.Budget("linf", f"{n}/255") for n in (1, 2, 4, 8)]
FREE = [rv.Budget("linf", 1)]


class Bench:
    """One model on the clips that ``robustvid attack --clips N`` draws."""

    def __init__(self, model: str, count: int, out: Path) -> None:
        self.model, self.count, self.out = rv.load_model(model), count, out
        self.data = rv.load_data("motion10")

    def correct(self, attacks: Sequence[str], budgets: Sequence[rv.Budget]) -> list[list[int]]:
        """Return for each attack how many clips stand in each budget; the budgets bound the same things."""
        results: Results = rv.evaluate(
            self.model,
            self.data,
            list(attacks),
            budgets,
            limit=self.count,
            out=self.out / _name(self, attacks, budgets),
        )
        curves = [results.curve(results.threats[0], results.attacks[number]) for number in range(len(attacks))]
        return [[int(value) for value in curve.correct.iloc[1:]] for curve in curves]


def _name(bench: Bench, attacks: Sequence[str], budgets: Sequence[rv.Budget]) -> str:
    import hashlib

    key = hashlib.sha256(repr([attacks, [b.describe() for b in budgets], bench.count]).encode()).hexdigest()[:8]
    return f"{bench.model.card.name}-{attacks[0].partition(':')[0]}-{key}"


def more_steps(bench: Bench) -> tuple[str, str, bool]:
    """O4: acc(20 steps) <= acc(5 steps), the gap growing with ε."""
    five, twenty = bench.correct(["pgd:steps=5,step_size=0.5", "pgd:steps=20"], LINF)
    gaps = [few - many for few, many in zip(five, twenty, strict=True)]
    return "PGD-20 leaves no more than PGD-5", f"PGD-5 {five}, PGD-20 {twenty} at 1, 2, 4, 8/255", min(gaps) >= 0


def union(bench: Bench) -> tuple[str, str, bool]:
    """O5: the worst case over attacks is not above any one of them."""
    names = ["fgsm", "pgd", "apgd-ce", "square"]
    results = rv.evaluate(
        bench.model, bench.data, names, LINF, limit=bench.count, out=bench.out / f"union-{bench.count}"
    )
    each = {name: [int(v) for v in results.curve("linf-frame", name).correct.iloc[1:]] for name in names}
    worst = [int(v) for v in results.curve("linf-frame").correct.iloc[1:]]
    holds = all(w <= one for counts in each.values() for w, one in zip(worst, counts, strict=True))
    return "the union is not above any attack", f"union {worst}, {each}", holds


def fewer_frames(bench: Bench) -> tuple[str, str, bool]:
    """O7: fewer frames, higher accuracy; frames by saliency below frames by chance."""
    budgets = [rv.Budget("linf", "8/255", frames=k) for k in (1, 2, 4)]
    salient, chance = bench.correct(["sparse-frames:rounds=1", "sparse-frames:rounds=1,ranking=random"], budgets)
    holds = salient == sorted(salient, reverse=True) and all(s < c for s, c in zip(salient, chance, strict=True))
    return "fewer frames, more stand; saliency below chance", f"k = 1, 2, 4: saliency {salient}, chance {chance}", holds


def between_the_balls(bench: Bench) -> tuple[str, str, bool]:
    """O8: acc_clip(√T ε) <= acc_frame(ε) <= acc_clip(ε)."""
    frames, held, told = bench.model.card.clip.length, True, []
    for eps in (0.25, 0.5, 1.0):
        ((frame,),) = bench.correct(["apgd-ce"], [rv.Budget("l2", frame=eps)])
        ((small, large),) = bench.correct(["apgd-ce"], [rv.Budget("l2", clip=eps * s) for s in (1.0, frames**0.5)])
        told.append(f"ε = {eps}: {large} <= {frame} <= {small}")
        held = held and large <= frame <= small
    return "l2 per frame lies between two l2 balls of the clip", "; ".join(told), held


def cuboids(bench: Bench) -> tuple[str, str, bool]:
    """O10: Square in cuboids leaves fewer than in tubes or folded, at 400 queries."""
    budgets = [rv.Budget("linf", f"{n}/255") for n in (8, 12)]
    shapes = ("cuboid", "tube", "fold")
    counts = [bench.correct([f"square:queries=400,shape={shape}"], budgets)[0] for shape in shapes]
    told = ", ".join(f"{shape} {count}" for shape, count in zip(shapes, counts, strict=True))
    holds = all(c < o for other in counts[1:] for c, o in zip(counts[0], other, strict=True))
    return "400 queries of Square: cuboids leave the fewest", f"{told} at 8, 12/255", holds


def order_of_frames(bench: Bench) -> tuple[str, str, bool]:
    """O15: shuffled frames leave a bag of frames exactly as it was, and hurt a model of motion."""
    ((motion,),) = bench.correct(["frame-shuffle"], FREE)
    bag = Bench("frame_pool", bench.count, bench.out)
    ((after,),) = bag.correct(["frame-shuffle"], FREE)
    clean = rv.evaluate(
        bag.model, bag.data, "fgsm", [rv.Budget("linf", 0.0)], limit=bench.count, out=bench.out / f"bag-{bench.count}"
    ).clean["correct"]
    told = f"{bench.model.card.name} {motion} of {bench.count}; frame_pool {clean} clean, {after} shuffled"
    return "frame-shuffle spares a bag of frames and hurts motion", told, after == clean and motion < bench.count // 2


CLAIMS = {
    "O4": more_steps,
    "O5": union,
    "O7": fewer_frames,
    "O8": between_the_balls,
    "O10": cuboids,
    "O15": order_of_frames,
}


def main() -> None:
    """Measure the claims and print one line for each."""
    parser = command_line("orderings", __doc__)
    parser.add_argument("--model", default="conv3d")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=sorted(CLAIMS), default=list(CLAIMS))
    parser.add_argument("--out", type=Path, default=Path("orderings"))
    given = parser.parse_args()
    bench = Bench(given.model, given.clips, given.out)
    print(f"{bench.model.card.name}, {given.clips} clips of motion10; counts are clips that stand\n")
    print("| | claim | measured | holds |\n|---|---|---|---|")
    for name in given.only:
        claim, told, holds = CLAIMS[name](bench)
        print(f"| {name} | {claim} | {told} | {'yes' if holds else '**no**'} |", flush=True)


if __name__ == "__main__":
    main()
