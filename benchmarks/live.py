"""How late is ``live``, and does it grow? A minute of motion10 in real time, and faster than the machine.

python -m benchmarks.live
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import torch

import robustvid as rv
from benchmarks import command_line
from robustvid.data.decode import write_video
from robustvid.evaluation.machine import keep_freed_memory

FPS, SECONDS, EVERY = 25, 60, 7


def stream(folder: Path) -> Path:
    """Write a minute of test videos end to end, six of each class after one another."""
    data = rv.load_data("motion10")
    count = data.frame_count(0)  # type: ignore[attr-defined]
    order = [index for label in range(10) for index in range(label, 10 * 7, 10)]
    frames = torch.cat([data.read(index, range(count)) for index in order])  # type: ignore[attr-defined]
    write_video(folder / "stream.mp4", frames[: FPS * SECONDS], FPS)
    return folder / "stream.mp4"


def main() -> None:
    """Watch the stream at every speed and print a table."""
    parser = command_line("live", __doc__)
    parser.add_argument("--model", default="conv3d")
    parser.add_argument("--speeds", nargs="+", type=float, default=[1, 20, 200, 1000])
    asked = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    model = rv.load_model(asked.model)
    print("| speed | windows | left out | gave way | late | ms p50, p95, p99 | most MB, first and last window |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = stream(Path(folder))
        for speed in asked.speeds:
            with rv.live.watch(model, path, every=EVERY, speed=speed) as watching:
                most = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 for _ in watching]
            told = watching.summary()
            print(
                f"| {speed:g} | {told.windows} | {told.dropped} | {told.skipped} | {told.missed} "
                f"| {told.p50:.1f}, {told.p95:.1f}, {told.p99:.1f} | {most[0]:.1f}, {most[-1]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
