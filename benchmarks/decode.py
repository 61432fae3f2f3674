"""How fast are the frames of a clip read, beside other libraries, and from a cache?

    python -m benchmarks.decode
    python -m benchmarks.decode --opens 5000      # and whether memory stays flat

Sixteen frames, every fourth one, from a random place of 175 frames of 320x240, as they are (nothing is resized): H.264
with a key frame every 250 and every 12 frames, and MPEG-4 with B-frames in AVI, as UCF101 has it. All libraries in turn
on one thread, milliseconds of processor time a clip, medians over rounds. "right" is the share of the frames that are
those of a plain decode from the beginning; who does not return all of them is not compared with. torchcodec, decord and
OpenCV take part where they are installed.
"""

from __future__ import annotations

import importlib.util
import os
import random
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch

import robustvid as rv
from benchmarks import command_line
from robustvid.data.cache import open_cache, write_cache
from robustvid.data.decode import read_frames
from robustvid.data.folder import FolderDataset

LENGTH, HEIGHT, WIDTH, FRAMES, STRIDE = 175, 240, 320, 16, 4
KINDS = {
    "H.264, GOP 250": ("h264_250.mp4", "libx264", {"crf": "23", "g": "250"}, None),
    "H.264, GOP 12": ("h264_12.mp4", "libx264", {"crf": "23", "g": "12"}, None),
    "MPEG-4 AVI, one key frame": ("mpeg4.avi", "mpeg4", {"q": "5", "sc_threshold": "1000000000"}, 2),
}
Reader = Callable[[Path, Sequence[int]], Any]


def write(path: Path, codec: str, options: dict[str, str], b_frames: int | None) -> Path:
    """Write textures that drift over each other."""
    generator = np.random.default_rng(0)
    coarse, fine = (
        generator.random((HEIGHT // cell, WIDTH // cell, 3)).repeat(cell, 0).repeat(cell, 1) for cell in (40, 8)
    )
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        if b_frames is not None:
            stream.codec_context.max_b_frames, stream.codec_context.gop_size = b_frames, 250
        for number in range(LENGTH):
            pixels = 150 * np.roll(coarse, number, 1) + 60 * np.roll(fine, -2 * number, 0)
            pixels += 4 * generator.standard_normal((HEIGHT, WIDTH, 1))
            frame = av.VideoFrame.from_ndarray(pixels.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def plain(path: Path) -> np.ndarray[Any, Any]:
    """Return all frames, decoded from the beginning."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def anew(path: Path, indices: Sequence[int]) -> Any:
    """Read a file as if it had never been opened."""
    os.utime(path)
    return read_frames(path, indices)


def torchcodec(path: Path, indices: Sequence[int]) -> Any:
    """Read frames with torchcodec in its exact mode."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    return decoder.get_frames_at(list(indices)).data


def decord(path: Path, indices: Sequence[int]) -> Any:
    """Read frames with decord."""
    from decord import VideoReader

    return VideoReader(str(path), num_threads=1).get_batch(list(indices)).asnumpy()


def opencv(path: Path, indices: Sequence[int]) -> Any:
    """Read frames with OpenCV: seek to the first, then read on."""
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_POS_FRAMES, indices[0])
    frames = []
    for number in range(indices[0], indices[-1] + 1):
        capture.grab()
        if number in indices:
            frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(frames)


def readers() -> dict[str, Reader]:
    """Return the ways of reading that there are on this machine."""
    peers: dict[str, Reader] = {"torchcodec": torchcodec, "decord": decord, "cv2": opencv}
    found = {name: reader for name, reader in peers.items() if importlib.util.find_spec(name)}
    packages = {"av": "av", "torchcodec": "torchcodec", "decord": "decord", "cv2": "opencv-python-headless"}
    print("Installed: " + ", ".join(f"{packages[name]} {version(packages[name])}" for name in ["av", *found]))
    for name in peers.keys() - found.keys():
        print(f"{name} is not installed and takes no part")
    return {"robustvid, a file never seen": anew, "robustvid": read_frames, **found}


def compare(rounds: int, clips: int, folder: Path) -> None:
    """Time every way on every kind of file and print a table."""
    ways = readers()
    print("\n| ms of processor time a clip (right frames) | " + " | ".join(KINDS) + " |")
    print("|---" * (len(KINDS) + 1) + "|")
    draw = random.Random(0)
    columns = []
    for name, codec, options, b_frames in KINDS.values():
        path = write(folder / name, codec, options, b_frames)
        frames = plain(path)
        starts = [draw.randrange(LENGTH - (FRAMES - 1) * STRIDE) for _ in range(clips)]
        jobs = [[start + STRIDE * step for step in range(FRAMES)] for start in starts]
        columns.append({way: time_one(reader, path, jobs, frames, rounds) for way, reader in ways.items()})
    for way in ways:
        print(f"| {way} | " + " | ".join(f"{column[way][0]:.1f} ({column[way][1]:.0%})" for column in columns) + " |")
    best = [
        min(taken for way, (taken, right) in column.items() if not way.startswith("robustvid") and right == 1)
        for column in columns
    ]
    ratios = [other / column["robustvid"][0] for other, column in zip(best, columns, strict=True)]
    print("| **the best of the others / robustvid** | " + " | ".join(f"**{ratio:.2f}**" for ratio in ratios) + " |")


def time_one(
    reader: Reader, path: Path, jobs: Sequence[Sequence[int]], frames: np.ndarray[Any, Any], rounds: int
) -> tuple[float, float]:
    """Return milliseconds a clip, and the share of the frames that are the right ones."""
    right = []
    for job in jobs:
        read = np.asarray(reader(path, job)).astype(np.int16)
        near = [np.clip(np.add(job, shift), 0, LENGTH - 1) for shift in (-1, 0, 1)]
        others = [abs(read - frames[indices]).mean((1, 2, 3)) for indices in near]
        right.append((np.argmin(others, 0) == 1).mean())
    taken = []
    for _ in range(rounds):
        begin = time.process_time()
        for job in jobs:
            reader(path, job)
        taken.append((time.process_time() - begin) / len(jobs))
    return 1000 * statistics.median(taken), float(np.mean(right))


def cached(folder: Path, rounds: int) -> None:
    """Time the evaluation clip of a file and of its cache, 112x112 as r3d_18 takes it."""
    for name in ("h264_250.mp4", "mpeg4.avi"):
        root = folder / f"tree_{name}"
        (root / "a").mkdir(parents=True)
        for number in range(8):
            (root / "a" / f"{number}{Path(name).suffix}").write_bytes((folder / name).read_bytes())
        data = FolderDataset(root)
        clip = rv.ClipSpec(FRAMES, STRIDE, (112, 112), short_side=128)
        write_cache(data, folder / f"cache_{name}", clip, jobs=1)
        cache = open_cache(folder / f"cache_{name}")
        taken: dict[str, list[float]] = {"file": [], "cache": []}
        for _ in range(rounds):
            for way, source, times in (("file", data, 1), ("cache", cache, 50)):
                begin = time.process_time()
                for _ in range(times):
                    for index in range(len(data)):
                        source.sample(index, clip)
                taken[way].append((time.process_time() - begin) / len(data) / times)
        file, memory = (1000 * statistics.median(taken[way]) for way in ("file", "cache"))
        print(
            f"{name}, 112x112: {file:.1f} ms a clip from its file, {memory:.3f} ms from a cache: {file / memory:.0f}x"
        )


def watch_memory(path: Path, opens: int) -> None:
    """Print the memory of this process while a file is opened again and again."""
    for count in range(opens + 1):
        read_frames(path, [count % LENGTH])
        if count % max(1, opens // 5) == 0:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            print(f"after {count:,} opens: {pages * resource.getpagesize() / 2**20:.0f} MiB resident")


def main() -> None:
    """Run all parts."""
    parser = command_line("decode", __doc__)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--opens", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        compare(given.rounds, given.clips, Path(folder))
        print()
        cached(Path(folder), given.rounds)
        if given.opens:
            watch_memory(Path(folder, "mpeg4.avi"), given.opens)


if __name__ == "__main__":
    main()
