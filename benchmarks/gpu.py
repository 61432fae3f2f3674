"""How near to the hardware is an attack on a GPU?

    python -m benchmarks.gpu                # r3d_18 and mvit_v2_s, about five minutes
    python -m benchmarks.gpu --smoke        # one small model and two rounds, to see that it runs, on a CPU too

Needs torch and torchvision alone. For each model and way of running it: a bare loop of forwards and backwards to the
clips, and our PGD-20 in float32 verdicts; medians over rounds, in turn. Prints clips a second for PGD-20, the ratio to
the bare loop, the share of the measured matrix-product peak of that precision, kernel launches a step, peak memory, and
how far logits are from float32.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import robustvid as rv
from benchmarks import command_line
from benchmarks.models import bare, seconds, video_model
from robustvid.contracts import frozen
from robustvid.evaluation.fast import Bf16, spread
from robustvid.evaluation.machine import full_float32, pick_device
from robustvid.evaluation.probe import Probe
from robustvid.models.fold import fold

EPS = 8 / 255


class Shape(NamedTuple):
    """What goes through a model at once."""

    batch: int
    frames: int
    size: int


SHAPES = {"r3d_18": Shape(16, 16, 112), "mvit_v2_s": Shape(8, 16, 224)}


def ways(model: nn.Module) -> dict[str, nn.Module]:
    """Return the model as given, folded, and folded in bfloat16."""
    twin = fold(model)
    return {"as given": model, "folded": twin, "folded, bf16": Bf16(twin)}


def peak(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Return the floating-point operations a second of a large matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * size**3 / min(seconds(lambda: torch.mm(a, b), device) for _ in range(5))


def launches(work: Callable[[], object], device: torch.device) -> int | None:
    """Return how many kernels a call launches; None on a CPU."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as told:
        work()
        torch.cuda.synchronize(device)
    return sum(event.count for event in told.key_averages() if not event.key.startswith(("Memcpy", "Memset")))


class Line(NamedTuple):
    """One line of the table."""

    model: str
    way: str
    clips_per_second: float
    ratio: float
    share_of_peak: float
    launches: int | None
    memory: float | None
    difference: float


class Effort(NamedTuple):
    """Steps of PGD, rounds to take the median of, and the side of the matrices that the peak is measured with."""

    steps: int
    rounds: int
    side: int


def measure(name: str, shape: Shape, device: torch.device, effort: Effort) -> list[Line]:
    """Return the lines of one model."""
    steps, rounds, side = effort
    clip = rv.ClipSpec(shape.frames, 1, (shape.size, shape.size))
    model = (video_model(name, clip) if name in SHAPES else rv.load_model(name)).to(device)
    clips = torch.rand(shape.batch, 3, shape.frames, shape.size, shape.size, device=device)
    attack = rv.load_attack("pgd", steps=steps, random_start=False)
    budget, seeds = rv.Budget("linf", frame=EPS), torch.arange(shape.batch)
    lines = []
    with frozen(model):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            logits = model(clips)
        labels = logits.argmax(1)
        flops = counter.get_total_flops() * (2 * steps + 1)  # a backward to the clips costs about a forward
        for way, network in ways(model).items():
            probe = Probe(network, shape.batch, surrogate=True)  # a surrogate: attacks spend all their steps on it

            def own(probe: Probe = probe) -> Tensor:
                return attack(probe, clips, labels, budget, seeds)

            def plain(network: nn.Module = network) -> None:
                bare(network, clips, labels, steps)

            own(), plain()  # kernels are chosen at the first call
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            times = [(seconds(own, device), seconds(plain, device)) for _ in range(rounds)]
            middle = statistics.median(one for one, _ in times)
            memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
            count = launches(own, device)
            with torch.no_grad():
                difference = float(((network(clips) - logits).abs().amax(1) / spread(logits)).max())
            lines.append(
                Line(
                    name,
                    way,
                    shape.batch / middle,
                    statistics.median(one / floor for one, floor in times),
                    flops / middle / peak(device, torch.bfloat16 if "bf16" in way else torch.float32, side),
                    None if count is None else round(count / steps),
                    memory,
                    difference,
                )
            )
    return lines


def main() -> None:
    """Measure and print the table."""
    parser = command_line("gpu", __doc__)
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    device = pick_device(given.device)
    with full_float32():
        if given.smoke:
            steps, lines = 2, measure("conv3d", Shape(2, 4, 32), device, Effort(2, 2, 256))
        else:
            steps, effort = given.steps, Effort(given.steps, given.rounds, 8192)
            lines = [line for name in given.models for line in measure(name, SHAPES[name], device, effort)]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{where}, torch {torch.__version__}; PGD-{steps}\n")
    print("| model | way | clips/s | times the bare loop | share of peak | launches a step | GiB | logits off by |")
    print("|---|---|---|---|---|---|---|---|")
    for line in lines:
        count = "–" if line.launches is None else f"{line.launches:,}"
        memory = "–" if line.memory is None else f"{line.memory:.1f}"
        rate = f"{line.clips_per_second:.1f} | {line.ratio:.3f} | {100 * line.share_of_peak:.0f} %"
        print(f"| {line.model} | {line.way} | {rate} | {count} | {memory} | {line.difference:.1e} |")


if __name__ == "__main__":
    main()
