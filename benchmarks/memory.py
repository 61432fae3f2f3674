"""Does memory stay flat however many clips a sweep attacks?

    python -m benchmarks.memory

Sweeps 10,000 synthetic clips of 16x112x112 with a tiny model and one FGSM radius, and prints the resident memory of the
process as the sweep goes on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import robustvid as rv
from benchmarks import command_line
from robustvid.evaluation.machine import keep_freed_memory
from robustvid.evaluation.waves import Progress
from robustvid.models.classifier import VideoClassifier
from robustvid.testing import TinyVideoNet

CLIP = rv.ClipSpec(frames=16, stride=1, size=(112, 112))
CLASSES = ("a", "b", "c", "d")


class Synthetic:
    """Random clips, made when they are asked for."""

    name, split, classes = "synthetic", "test", CLASSES

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, clip: rv.ClipSpec) -> rv.Sample:
        """Return noise, with labels in turn: an untrained model is right about a fourth of it, and that is attacked."""
        generator = torch.Generator().manual_seed(index)
        frames = torch.randint(0, 256, (clip.length, *clip.size, 3), generator=generator, dtype=torch.uint8)
        return rv.Sample(str(index), frames, index % len(CLASSES))


def resident() -> float:
    """Return the resident memory of this process in MiB; Linux alone says it without a package."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def main() -> None:
    """Sweep, and print the memory after so many clips."""
    parser = command_line("memory", __doc__)
    parser.add_argument("--clips", type=int, default=10_000)
    given = parser.parse_args()
    keep_freed_memory()
    card = rv.ModelCard("tiny", "tiny", CLASSES, CLIP)
    seen: dict[int, float] = {}

    def note(progress: Progress) -> None:
        hundreds = int(progress.done) // 500 * 500
        if hundreds not in seen:
            seen[hundreds] = resident()
            print(f"{hundreds:6d} clips: {seen[hundreds]:.0f} MiB", flush=True)

    with tempfile.TemporaryDirectory() as out:
        model, data = VideoClassifier(TinyVideoNet(len(CLASSES)), card), Synthetic(given.clips)
        rv.evaluate(model, data, "fgsm", [rv.Budget("linf", "4/255")], out=f"{out}/run", progress=note)
    print(f"results read: {resident():.0f} MiB")
    if 500 in seen:
        print(f"growth after the first 500 clips: {max(seen.values()) - seen[500]:.0f} MiB")


if __name__ == "__main__":
    main()
