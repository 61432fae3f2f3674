"""What does a robust-accuracy curve cost here, and what in other libraries?

    make peers
    python -m benchmarks.sweep --model conv3d-pgd --clips 128
    python -m benchmarks.sweep --model r3d_18 --clips 8 --rounds 1 --unit 16320

Eight linf radii, PGD-10 from the clip itself with steps of a quarter of the radius, on the same clips. Each library is
used as its own user would: a loop over radii and batches of 16, misclassified clips counted. Every contestant runs in a
process of its own, on one thread, in turn; what is told is process CPU time around the sweep, without imports and
loading. robustvid's includes decoding its clips, choosing what is fast, judging and writing its run, but not what the
others have nothing of: the audit of skipping and the clips kept for the report. Ratios are medians over rounds; told
too is where robustvid's curve is above another's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import robustvid as rv
from benchmarks import command_line
from benchmarks.models import clips_of, load
from benchmarks.peers import adv_lib_attacks, art_estimator

RADII = (1, 2, 3, 4, 6, 8, 12, 16)  # over a unit
STEPS, BATCH = 10, 16
Sweep = Callable[[nn.Module, Tensor, Tensor, Sequence[float]], list[int]]


def by_batches(attack: Callable[[Tensor, Tensor, float], Tensor]) -> Sweep:
    """Return the loop that a user writes around an attack."""

    def sweep(model: nn.Module, clips: Tensor, labels: Tensor, radii: Sequence[float]) -> list[int]:
        correct = []
        for eps in radii:
            stands = 0
            for x, y in zip(clips.split(BATCH), labels.split(BATCH), strict=True):
                found = attack(x, y, eps)
                with torch.no_grad():
                    stands += int((model(found).argmax(1) == y).sum())
            correct.append(stands)
        return correct

    return sweep


def torchattacks(model: nn.Module, clips: Tensor, labels: Tensor, radii: Sequence[float]) -> list[int]:
    """Sweep with torchattacks."""
    import torchattacks as peer

    def attack(x: Tensor, y: Tensor, eps: float) -> Tensor:
        found: Tensor = peer.PGD(model, eps=eps, alpha=eps / 4, steps=STEPS, random_start=False)(x, y)
        return found

    return by_batches(attack)(model, clips, labels, radii)


def art(model: nn.Module, clips: Tensor, labels: Tensor, radii: Sequence[float]) -> list[int]:
    """Sweep with the Adversarial Robustness Toolbox."""
    import numpy as np
    from art.attacks.evasion import ProjectedGradientDescent

    estimator, targets = art_estimator(model, clips, labels)
    correct = []
    for eps in radii:
        attack = ProjectedGradientDescent(
            estimator, norm=np.inf, eps=eps, eps_step=eps / 4, max_iter=STEPS, batch_size=BATCH, verbose=False
        )
        found = attack.generate(clips.numpy(), y=targets)
        predicted = estimator.predict(found, batch_size=BATCH).argmax(1)
        correct.append(int((predicted == labels.numpy()).sum()))
    return correct


def foolbox(model: nn.Module, clips: Tensor, labels: Tensor, radii: Sequence[float]) -> list[int]:
    """Sweep with foolbox, which takes all radii at once."""
    import foolbox as peer

    wrapped = peer.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = peer.attacks.LinfPGD(rel_stepsize=0.25, steps=STEPS, random_start=False)
    broken = torch.zeros(len(radii), dtype=torch.int64)
    for x, y in zip(clips.split(BATCH), labels.split(BATCH), strict=True):
        _, _, success = attack(wrapped, x, y, epsilons=list(radii))
        broken += torch.as_tensor(success).sum(1)
    return [len(clips) - int(count) for count in broken]


def adv_lib(model: nn.Module, clips: Tensor, labels: Tensor, radii: Sequence[float]) -> list[int]:
    """Sweep with adv-lib."""

    def attack(x: Tensor, y: Tensor, eps: float) -> Tensor:
        found: Tensor = adv_lib_attacks().pgd_linf(
            model, x, y, eps, steps=STEPS, random_init=False, relative_step_size=0.25
        )
        return found

    return by_batches(attack)(model, clips, labels, radii)


PEERS: dict[str, Sweep] = {"torchattacks": torchattacks, "ART": art, "foolbox": foolbox, "adv-lib": adv_lib}
OURS: dict[str, dict[str, Any]] = {
    "robustvid": {},
    "robustvid bf16": {"precision": "bf16"},
    "robustvid exact": {"precision": "exact"},
    "robustvid exact, every": {"precision": "exact", "strategy": "every"},
}
FAST = ("robustvid", "robustvid bf16")  # what the others are told as multiples of


def ours(
    model: rv.VideoClassifier, data: rv.VideoDataset, count: int, unit: int, **settings: Any
) -> tuple[list[int], Any]:
    """Sweep with robustvid; return the curve and the passes."""
    card = f"pgd:steps={STEPS},step_size=0.25,random_start=false"
    budgets = [rv.Budget("linf", f"{radius}/{unit}") for radius in RADII]
    with tempfile.TemporaryDirectory() as out:
        results = rv.evaluate(model, data, [card], budgets, limit=count, out=f"{out}/run", audit=0, keep=0, **settings)
        return results.curve().correct.tolist()[1:], results.cost


def child(who: str, model_name: str, count: int, unit: int) -> None:
    """Run one contestant and print what it found and what it took."""
    torch.set_num_threads(1)
    model, data = load(model_name, count)
    told: dict[str, Any] = {}
    if who in PEERS:
        clips, labels = clips_of(model, data, count)
        radii = [radius / unit for radius in RADII]
        PEERS[who](model, clips[:1], labels[:1], radii[:1])  # imports and first allocations
        begin = time.process_time()
        told["correct"] = PEERS[who](model, clips, labels, radii)
    else:
        from robustvid.evaluation.machine import keep_freed_memory

        keep_freed_memory()  # as the command does
        _ = rv.evaluate  # imports
        begin = time.process_time()
        told["correct"], told["cost"] = ours(model, data, count, unit, **OURS[who])
    told["seconds"] = time.process_time() - begin
    print(json.dumps(told))


def measure(who: str, model_name: str, count: int, unit: int) -> dict[str, Any]:
    """Run one contestant in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.sweep", "--who", who, "--model", model_name]
    command += ["--clips", str(count), "--unit", str(unit)]
    done = subprocess.run(  # noqa: S603  our own module
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    """Measure every contestant in turn and print the table."""
    parser = command_line("sweep", __doc__)
    parser.add_argument("--model", default="conv3d-pgd")
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--unit", type=int, default=255, help="what the radii are divided by  [default: 255]")
    parser.add_argument("--ours", nargs="*", choices=list(OURS), default=list(OURS))
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--who", choices=[*PEERS, *OURS], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.who:
        child(given.who, given.model, given.clips, given.unit)
        return
    rounds = []
    for number in range(given.rounds):
        rounds.append({who: measure(who, given.model, given.clips, given.unit) for who in [*given.ours, *given.peers]})
        told = ", ".join(f"{who} {one['seconds']:.1f}" for who, one in rounds[-1].items())
        print(f"round {number + 1}: CPU seconds {told}", flush=True)
    print(f"\n{given.model}, {given.clips} clips, PGD-{STEPS}, {given.rounds} rounds\n")
    swept = [who for who in FAST if who in given.ours]
    told = "".join(f" times {who} |" for who in swept)
    print(f"| | CPU seconds |{told} passes | stand at {', '.join(map(str, RADII))} of {given.unit} |")
    print("|---" * (len(swept) + 4) + "|")
    for who, last in rounds[-1].items():
        seconds = statistics.median(one[who]["seconds"] for one in rounds)
        ratios = [statistics.median(one[who]["seconds"] / one[mine]["seconds"] for one in rounds) for mine in swept]
        passes = f"{last['cost']['forwards']:,} / {last['cost']['backwards']:,}" if "cost" in last else ""
        stand = ", ".join(map(str, last["correct"]))
        print(f"| {who} | {seconds:.1f} |{''.join(f' {ratio:.2f} |' for ratio in ratios)} {passes} | {stand} |")
    for mine, theirs in itertools.product(swept, given.peers):
        pairs = zip(rounds[-1][mine]["correct"], rounds[-1][theirs]["correct"], strict=True)
        if any(a > b for a, b in pairs):
            print(f"\n{mine} is above {theirs} somewhere")


if __name__ == "__main__":
    main()
