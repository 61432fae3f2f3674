"""What does an attack cost beside the bare forwards and backwards that it is made of?

    python -m benchmarks.pgd_step --model conv3d
    python -m benchmarks.pgd_step --model r3d_18
    python -m benchmarks.pgd_step --attack square

In turn in one process, on the model as given and as many clips as go through it at once: the floor, ten forwards and
backwards to the clips and one last forward with frozen weights and no arithmetic; our PGD, not stopping early; and the
same by torchattacks, where it is installed. Square against as many bare forwards as it makes queries. Process CPU time
on a CPU; median of the ratios to the floor of the round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

import robustvid as rv
from benchmarks import command_line
from benchmarks.models import bare, clips_of, load, seconds
from robustvid.contracts import frozen
from robustvid.evaluation.machine import keep_freed_memory, pick_device
from robustvid.evaluation.probe import Probe, lanes_on

STEPS, QUERIES, EPS = 10, 100, 8 / 255


def square_arms(model: nn.Module, clips: Tensor, labels: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return Square and its floor."""
    attack = rv.load_attack("square", queries=QUERIES)
    probe = Probe(model, len(clips), surrogate=True)
    budget, seeds = rv.Budget("linf", frame=EPS), torch.arange(len(clips))

    def forwards() -> Tensor:
        with torch.no_grad():
            for _ in range(QUERIES):
                model(clips)
        return clips

    return {"floor": forwards, "robustvid": lambda: attack(probe, clips, labels, budget, seeds)}


def arms(model: nn.Module, clips: Tensor, labels: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return what to time."""
    attack = rv.load_attack("pgd", steps=STEPS, step_size=0.25, random_start=False)
    probe = Probe(model, len(clips), surrogate=True)  # a surrogate: attacks spend all their steps on it
    budget, seeds = rv.Budget("linf", frame=EPS), torch.arange(len(clips))
    found: dict[str, Callable[[], Tensor]] = {
        "floor": lambda: bare(model, clips, labels, STEPS),
        "robustvid": lambda: attack(probe, clips, labels, budget, seeds),
    }
    try:
        import torchattacks
    except ImportError:
        return found
    peer = torchattacks.PGD(model, eps=EPS, alpha=EPS / 4, steps=STEPS, random_start=False)
    return found | {"torchattacks": lambda: peer(clips, labels)}


def main() -> None:
    """Time every arm in turn and print the ratios."""
    parser = command_line("pgd_step", __doc__)
    parser.add_argument("--model", default="conv3d")
    parser.add_argument("--attack", choices=["pgd", "square"], default="pgd")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    device = pick_device(given.device)
    model, data = load(given.model, lanes_on(device))
    clips, labels = (tensor.to(device) for tensor in clips_of(model, data, lanes_on(device)))
    with frozen(model.to(device)):
        works = (arms if given.attack == "pgd" else square_arms)(model, clips, labels)
        for work in works.values():
            work()
        times = [{name: seconds(work, device) for name, work in works.items()} for _ in range(given.rounds)]
    what = f"PGD-{STEPS}" if given.attack == "pgd" else f"Square, {QUERIES} queries"
    print(f"{given.model}, {len(clips)} clips, {what}, {given.rounds} rounds")
    for name in works:
        ratios = [one[name] / one["floor"] for one in times]
        middle = statistics.median(one[name] for one in times)
        print(f"{name}: {middle:.3f} s, {statistics.median(ratios):.3f} of the floor")


if __name__ == "__main__":
    main()
