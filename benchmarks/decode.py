"""How fast are clips read, beside the plainest loop over a file?

    python -m benchmarks.decode                    # motion10
    python -m benchmarks.decode --root my/videos   # a folder of videos per class

In turn, on one thread: decoding every frame of each file with PyAV and keeping none; ``read_frames`` of the clip's
frames; and a dataset's ``sample``, which also counts frames, resizes and crops. Medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import av
import torch

import robustvid as rv
from benchmarks.models import seconds
from robustvid.data.decode import read_frames
from robustvid.data.sampling import clip_indices
from robustvid.data.videos import VideoFiles


def plain(path: Path) -> int:
    """Decode a whole file to RGB; return how many frames it has."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(frame.to_ndarray(format="rgb24").shape[0] > 0 for frame in container.decode(video=0))


def main() -> None:
    """Time the three ways and print milliseconds a clip."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__)
    parser.add_argument("--root")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--stride", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = rv.load_data("folder" if given.root else "motion10", root=given.root)
    assert isinstance(data, VideoFiles)
    spec = rv.ClipSpec(given.frames, given.stride, (given.size, given.size))
    numbers = range(min(given.clips, len(data)))
    clips = {i: (data.path(i), clip_indices(data.frame_count(i), spec)) for i in numbers}
    ways: dict[str, Callable[[], object]] = {
        "every frame of the file, PyAV": lambda: [plain(path) for path, _ in clips.values()],
        "read_frames of the clip": lambda: [read_frames(path, frames) for path, frames in clips.values()],
        "sample, resized and cropped": lambda: [data.sample(i, spec) for i in numbers],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.rounds):
        for name, work in ways.items():
            times[name].append(seconds(work, torch.device("cpu")))
    print(f"{data.name}, {len(clips)} clips of {given.frames} frames, stride {given.stride}, {given.size} pixels\n")
    print("| | ms a clip | clips/s | times the whole file |\n|---|---|---|---|")
    for name, taken in times.items():
        one = statistics.median(taken) / len(clips)
        ratio = statistics.median(own / bare for own, bare in zip(taken, next(iter(times.values())), strict=True))
        print(f"| {name} | {1000 * one:.2f} | {1 / one:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
