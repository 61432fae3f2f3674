"""What does ``standard`` over eight radii cost beside AutoAttack's own sequence at each of them?

    make peers
    OMP_NUM_THREADS=1 python -m benchmarks.sequence --model conv3d-pgd --clips 8

AutoAttack's standard sequence (APGD-CE, targeted APGD, targeted FAB, Square with 5,000 queries) through a 4-D view,
once for every linf radius, as its own user would run it; then one sweep of ours. Passes are forwards and backwards of
clips.
"""

from __future__ import annotations

import tempfile
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn

import robustvid as rv
from benchmarks import command_line
from benchmarks.models import clips_of
from benchmarks.peers import Folded
from robustvid.contracts import frozen
from robustvid.evaluation.machine import keep_freed_memory

RADII = (1, 2, 3, 4, 6, 8, 12, 16)  # of 255


class Told(NamedTuple):
    """Clips that stand at each radius, passes, and CPU seconds."""

    stands: list[int]
    passes: int
    seconds: float


class Counted(nn.Module):
    """A model that counts the clips that go forwards and backwards."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)``."""
        logits: Tensor = self.model(clips)
        self.passes += len(clips)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.passes += len(gradient)


def reference(model: nn.Module, clips: Tensor, labels: Tensor) -> Told:
    """Run AutoAttack at every radius."""
    from pyautoattack import AutoAttack

    counted, begin, stands = Counted(model), time.process_time(), []
    folded = Folded(counted, clips)
    for radius in RADII:
        attack = AutoAttack(folded, norm="Linf", eps=radius / 255, seed=0, version="standard")
        found = attack.run_standard_evaluation(clips.flatten(1, 2), labels, batch_size=len(clips))
        images = found[0] if isinstance(found, tuple) else found
        with torch.no_grad():
            stands.append(int((model(images.reshape(clips.shape)).argmax(1) == labels).sum()))
        seconds = time.process_time() - begin
        print(
            f"AutoAttack up to {radius}/255: {stands[-1]} stand, {counted.passes:,} passes, {seconds:.0f} s", flush=True
        )
    return Told(stands, counted.passes, time.process_time() - begin)


def ours(model: rv.VideoClassifier, data: rv.VideoDataset, count: int, radii: tuple[int, ...] = RADII) -> Told:
    """Run one sweep with ``standard``."""
    budgets, begin = [rv.Budget("linf", f"{radius}/255") for radius in radii], time.process_time()
    with tempfile.TemporaryDirectory() as out:
        results = rv.evaluate(
            model, data, rv.load_battery("standard"), budgets, limit=count, out=f"{out}/run", audit=0, keep=0
        )
        passes = round(results.cost["forwards"] + results.cost["backwards"])
        return Told(results.curve().correct.tolist()[1:], passes, time.process_time() - begin)


def main() -> None:
    """Measure both and print the table."""
    parser = command_line("sequence", __doc__)
    parser.add_argument("--model", default="conv3d-pgd")
    parser.add_argument("--clips", type=int, default=8)
    given = parser.parse_args()
    keep_freed_memory()
    model, data = rv.load_model(given.model), rv.load_data("motion10")
    told = {"robustvid standard, all radii": ours(model, data, given.clips)}
    for radius in RADII:
        told[f"robustvid standard, {radius}/255 alone"] = ours(model, data, given.clips, (radius,))
    clips, labels = clips_of(model, data, given.clips)
    with frozen(model):
        told["AutoAttack at each radius"] = reference(model, clips, labels)
    base = next(iter(told.values()))
    print(f"\n{given.model}, {given.clips} clips; stand at {', '.join(map(str, RADII))} of 255\n")
    print("| | passes | times the curve | CPU seconds | times the curve | stand |")
    print("|---|---|---|---|---|---|")
    for who, one in told.items():
        times = f"{one.passes / base.passes:.2f} | {one.seconds:.1f} | {one.seconds / base.seconds:.2f}"
        print(f"| {who} | {one.passes:,} | {times} | {', '.join(map(str, one.stands))} |")


if __name__ == "__main__":
    main()
