"""Is the battery ``standard`` at least as strong as what other libraries offer, at the same price?

    make peers
    python -m benchmarks.strength --model conv3d --threat linf --out strength

Every library attacks the same clips at the same radii and may spend as many forwards and backwards on a clip and radius
as ``standard`` spends on one that never falls. All are given the assumption that ``standard``'s sweep makes: a clip
that stands at a radius stands at smaller ones. Each result is judged by the same measurement: a clip is broken if it is
in [0, 1], in the budget and misclassified by the model itself; all attack its folded twin, which answers alike. What is
done is kept in ``--out``; the same command goes on.

    python -m benchmarks.strength --model conv3d --threat l2 --radius 2 --seeds 4

How much of a difference of a clip or two is luck: attacks begin at random points, so that a clip falls with one seed
and stands with another. Every clip is attacked at one radius alone, once for every seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

import robustvid as rv
from benchmarks import command_line
from benchmarks.models import BATCH, Some
from benchmarks.peers import Round, contestants
from robustvid.contracts import frozen, in_lanes
from robustvid.evaluation.machine import full_float32, keep_freed_memory, pick_device
from robustvid.evaluation.plan import by_clip
from robustvid.evaluation.probe import Probe, lanes_on
from robustvid.evaluation.results import wilson
from robustvid.evaluation.sweep import choose_clips
from robustvid.models.fold import fold

Found = TypeVar("Found")
RADII: dict[str, list[Any]] = {"linf": [Fraction(n, 255) for n in (2, 4, 8, 12)], "l2": [0.5, 1.0, 2.0, 4.0]}


def budget_of(norm: str, radius: Fraction | float) -> rv.Budget:
    """Return linf per frame, or l2 per clip."""
    return rv.Budget("linf", frame=radius) if norm == "linf" else rv.Budget("l2", clip=radius)


def load(model: rv.VideoClassifier, count: int, skip: int) -> tuple[Tensor, Tensor]:
    """Return the clips that ``robustvid attack --clips COUNT`` draws, the first ``skip`` left out, and their labels."""
    data = rv.load_data("motion10")
    samples = [data.sample(index, model.card.clip) for index in choose_clips(len(data), count, seed=0)[skip:]]
    clips = torch.stack([sample.frames for sample in samples]).permute(0, 4, 1, 2, 3).contiguous().float() / 255
    return clips, torch.tensor([sample.label for sample in samples])


def price(model: rv.VideoClassifier, clips: Tensor, norm: str, battery: rv.Battery) -> int:
    """Return the forwards and backwards that a battery spends on a right clip that never falls."""
    probe = Probe(model, lanes_on(clips.device))
    with torch.no_grad():
        labels = probe(clips).argmax(1)
    probe.forwards = 0
    for attack in battery.attacks:
        attack(probe, clips, labels, budget_of(norm, 1e-9), torch.arange(len(clips)))
    return round((probe.forwards + probe.backwards) / len(clips))


class Contest(NamedTuple):
    """What all libraries are given: a counted twin, the model, clips, labels, norm, passes for a clip and radius."""

    probe: Probe
    model: rv.VideoClassifier
    clips: Tensor
    labels: Tensor
    norm: str
    passes: int

    def select(self, index: Tensor) -> Contest:
        """Return the contest over some of the clips."""
        return self._replace(clips=self.clips[index], labels=self.labels[index])

    def right(self, clips: Tensor) -> Tensor:
        """Return whether each clip is classified rightly by the model itself, without counting it."""
        self.probe.eval()  # a library may have left the twin in training mode
        with torch.no_grad():
            logits = in_lanes(self.model, clips, self.probe.lanes)
        return logits.argmax(1) == self.labels


def stands_at(contest: Contest, *, rounds: Sequence[Round]) -> list[int]:
    """Return for each clip at how many of the radii it stands; -1 where the clean clip is wrong."""
    stands = torch.where(contest.right(contest.clips), 0, -1)
    undecided = (stands == 0).nonzero().flatten()
    for place in reversed(range(len(RADII[contest.norm]))):
        budget = budget_of(contest.norm, RADII[contest.norm][place])
        found = [broken(contest.select(part), budget, rounds) for part in undecided.split(BATCH)]
        fallen = torch.cat([stands.new_zeros(0, dtype=torch.bool), *found])
        stands[undecided[~fallen]] = place + 1
        undecided = undecided[fallen]
    return stands.tolist()


def broken(contest: Contest, budget: rv.Budget, rounds: Sequence[Round], first: int = 0) -> Tensor:
    """Run the rounds in turn, again and again, on the clips still standing, until the passes are spent.

    The rounds are numbered from ``first`` on, a multiple of how many there are, and a number is a seed.
    """
    fallen, spent, number = torch.zeros_like(contest.labels, dtype=torch.bool), 0.0, first
    eps = float(budget.frame if contest.norm == "linf" else budget.clip)  # type: ignore[arg-type]
    while spent < contest.passes and not bool(fallen.all()):
        left = (~fallen).nonzero().flatten()
        part, probe = contest.select(left), contest.probe
        before = probe.forwards + probe.backwards
        found = rounds[number % len(rounds)](probe, part.clips.clone(), part.labels, eps, number)
        spent += (probe.forwards + probe.backwards - before) / len(left)
        delta = budget.project(found.detach() - part.clips)
        fallen[left] = ~part.right((part.clips + delta).clamp(0, 1))
        number += 1
    return fallen


def standing(contest: Contest, *, radius: Fraction, rounds: Sequence[Round], seed: int) -> int:
    """Return how many clips stand at one radius when the rounds are numbered apart from those of other seeds."""
    budget, places = budget_of(contest.norm, radius), torch.arange(len(contest.clips))
    first = 1000 * seed * len(rounds)
    fallen = [broken(contest.select(part), budget, rounds, first) for part in places.split(BATCH)]
    return int((contest.right(contest.clips) & ~torch.cat(fallen)).sum())


def ours_standing(contest: Contest, *, radius: Fraction, seed: int, data: rv.VideoDataset, battery: rv.Battery) -> int:
    """Return the same of a battery, from a run that is not kept."""
    with TemporaryDirectory() as folder:
        budgets = [budget_of(contest.norm, radius)]
        results = rv.evaluate(contest.model, data, battery, budgets, out=folder, seed=seed, audit=0, keep=0)
        return int(results.curve()["correct"].iloc[-1])


def ours(model: rv.VideoClassifier, norm: str, count: int, out: Path, battery: rv.Battery) -> list[int]:
    """Return the same of a battery, from a run in ``out``."""
    budgets = [budget_of(norm, radius) for radius in RADII[norm]]
    folder = out / f"{battery.name}@{battery.version}"
    results = rv.evaluate(model, rv.load_data("motion10"), battery, budgets, limit=count, out=folder)
    rows = by_clip(results.rows)
    stands = []
    for index in choose_clips(results.spec["data"]["videos"], count, seed=0):
        (hunt,) = results.plan.hunts(rows[index]).values()
        stands.append(int((hunt.broken_by < 0).sum()) if rows[index][0].robust else -1)
    return stands


def main() -> None:
    """Measure one model under one threat."""
    parser = command_line("strength", __doc__)
    parser.add_argument("--model", default="conv3d")
    parser.add_argument("--threat", choices=list(RADII), default="linf")
    parser.add_argument("--battery", default="standard", help="ours, such as standard@1")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--skip", type=int, default=0, help="so many of the clips, which have been measured before")
    parser.add_argument("--steps", type=int, default=50, help="of every gradient attack of the peers")
    parser.add_argument("--targets", type=int, default=5, help="of the peers' targeted attacks")
    parser.add_argument("--passes", type=int, help="of a peer, for a clip and radius  [default: those of the battery]")
    parser.add_argument("--radius", type=Fraction, help="the only one, for --seeds")
    parser.add_argument("--seeds", type=int, default=4, help="so many, at --radius")
    peers = [_short(name) for name in contestants("linf", steps=1, targets=1)]
    parser.add_argument("--only", nargs="+", default=peers, choices=peers, help="peers  [default: all]")
    parser.add_argument("--out", type=Path, default=Path("strength"))
    given = parser.parse_args()
    keep_freed_memory()
    device = pick_device(None)
    model, battery = rv.load_model(given.model).to(device), rv.load_battery(given.battery)
    known = contestants(given.threat, given.steps, given.targets)
    rounds_of = {name: rounds for name, rounds in known.items() if _short(name) in given.only}
    out = given.out / f"{model.card.name}-{given.threat}-{given.clips}"
    out.mkdir(parents=True, exist_ok=True)
    clips, labels = (tensor.to(device) for tensor in load(model, given.clips, given.skip))
    with frozen(model), full_float32():
        passes = given.passes or price(model, clips[: lanes_on(device)], given.threat, battery)
    contest = Contest(Probe(fold(model), lanes_on(device)), model, clips, labels, given.threat, passes)
    mine = f"robustvid {battery.name}@{battery.version}"
    title = f"{model.card.name}, {len(clips)} clips, {passes} passes a clip and radius"
    if given.radius:
        print(f"{title}: how many stand at {given.threat} {given.radius} with each seed")
        data = rv.load_data("motion10")
        some = Some(data, choose_clips(len(data), given.clips, seed=0)[given.skip :])
        measures = {mine: partial(ours_standing, data=some, battery=battery)}
        measures |= {name: partial(standing, rounds=rounds) for name, rounds in rounds_of.items()}
        for name, measure in measures.items():
            left = []
            for seed in range(given.seeds):
                folder = out / f"at-{float(given.radius):.4f}-seed-{seed}"
                left.append(kept(folder, name, contest, partial(measure, radius=given.radius, seed=seed)))
            print(f"| {name} | {', '.join(map(str, left))} | {fmean(left):.1f} |", flush=True)
        return
    stands = {mine: ours(model, given.threat, given.clips, out, battery)[given.skip :]}
    for name, rounds in rounds_of.items():
        stands[name] = kept(out / f"from-{given.skip}", name, contest, partial(stands_at, rounds=rounds))
    print(table(stands, given.threat, title))


def kept(out: Path, name: str, contest: Contest, measure: Callable[[Contest], Found]) -> Found:
    """Return what is measured of one library, from ``out`` where it has been measured before."""
    path = out / f"{_short(name)}-{contest.passes}.json"
    if not path.is_file():
        out.mkdir(exist_ok=True)
        begin, probe = time.perf_counter(), contest.probe
        probe.forwards = probe.backwards = 0
        # The probe is frozen too: torchattacks brings back the mode that it was in.
        with full_float32(), frozen(probe):
            stands = measure(contest)
        seconds = round(time.perf_counter() - begin)
        cost = {"forwards": probe.forwards, "backwards": probe.backwards, "seconds": seconds}
        path.write_text(json.dumps({"stands": stands} | cost))
        print(f"{name}: {cost}", flush=True)
    found: Found = json.loads(path.read_text())["stands"]
    return found


def _short(name: str) -> str:
    return name.removeprefix("robustvid ").split(maxsplit=1)[0]


def table(stands: dict[str, list[int]], norm: str, title: str) -> str:
    """Return robust accuracy by radius, and how many pairs of clip and radius a peer alone breaks, or ours alone."""
    radii = [f"{int(radius * 255)}/255" if norm == "linf" else str(radius) for radius in RADII[norm]]
    lines = [title, "", f"| {norm} | clean | {' | '.join(radii)} | it alone breaks | ours alone breaks |"]
    lines.append("|---" * (len(radii) + 4) + "|")
    mine = next(iter(stands.values()))
    for name, found in stands.items():
        counts = [sum(place >= need for place in found) for need in range(len(radii) + 1)]
        shares = [_share(count, len(found)) for count in counts]
        alone = [sum(max(0, a - b) for a, b in zip(*pair, strict=True)) for pair in ((mine, found), (found, mine))]
        lines.append(f"| {' | '.join(map(str, [name, *shares, *alone]))} |")
    return "\n".join(lines)


def _share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{100 * count / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
