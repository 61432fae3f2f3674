"""motion10 as a dataset: made once, on first use, in the user's cache folder, and read like any other videos."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType

import platformdirs
import torch

from robustvid.data.decode import read_frames, write_video
from robustvid.data.synthetic import CLASSES, FPS, FRAMES, SPLITS, render
from robustvid.data.videos import VideoFile, VideoFiles
from robustvid.errors import DataError
from robustvid.registry import did_you_mean

PER_CLASS: Mapping[str, int] = MappingProxyType({"train": 120, "test": 40})
FOLDER, MANIFEST = "motion10-v1", "manifest.json"


class Motion10(VideoFiles):
    """Ten motions of one sprite: right, left, up, down, two spins, grow, shrink, two swings.

    Video ``i`` has class ``i % 10``. Videos are H.264, 64x64, 24 frames at 12 per second; ``synthetic``
    tells how they are drawn and why only time tells the classes apart.

    Attributes:
        digest: SHA-256 over the decoded pixels of every video of the split, as they were when it was made.
    """

    def __init__(self, root: str | Path | None = None, split: str = "test") -> None:
        """Open the split, making the whole dataset first where it does not exist yet.

        Args:
            root: folder to keep it in; ``$ROBUSTVID_HOME``, else this platform's cache folder, when not given.
            split: ``"train"`` (1,200 videos) or ``"test"`` (400).

        Raises:
            DataError: no such split, or the folder cannot be written or is not one that was made here.
        """
        if split not in SPLITS:
            raise DataError(f"motion10 has no split {split!r}.{did_you_mean(split, SPLITS)} There are: train, test.")
        folder = (home_folder() if root is None else Path(root).expanduser()) / FOLDER
        if not folder.exists():
            _make(folder)
        hashes = {path: digest for path, digest in _read_manifest(folder).items() if path.startswith(f"{split}/")}
        self.digest = hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()
        videos = [VideoFile(path, CLASSES.index(path.split("/")[1])) for path in sorted(hashes)]
        super().__init__("motion10", split, CLASSES, folder, videos)

    def frame_count(self, index: int) -> int:  # noqa: ARG002
        """Return 24: these videos need no counting."""
        return FRAMES


def build(folder: Path, per_class: Mapping[str, int] = PER_CLASS, seed: int = 0) -> None:
    """Make the videos in ``folder``, all of them or none.

    They are made in a folder beside it that is renamed when complete. When another process was faster, its
    work stays and this one's is dropped; both are alike.

    Args:
        folder: folder that does not exist yet.
        per_class: number of videos of each class in each split.
        seed: number of the dataset; ``render`` says what follows from it.

    Raises:
        DataError: the folder cannot be written.
    """
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    jobs = [
        (split, label, index) for split in SPLITS for label in range(len(CLASSES)) for index in range(per_class[split])
    ]
    try:
        for split in SPLITS:
            for name in CLASSES:
                (unfinished / split / name).mkdir(parents=True)
        # Drawing and encoding leave Python's lock for most of the time, so threads are enough.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            hashes = dict(pool.map(partial(_make_video, unfinished, seed), jobs))
        (unfinished / MANIFEST).write_text(json.dumps({"seed": seed, "videos": hashes}, indent=1) + "\n")
        _put_in_place(unfinished, folder)
    except OSError as error:
        raise DataError(
            f"cannot make motion10 in {folder}: {error}; set ROBUSTVID_HOME to a folder that can be written"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _make_video(folder: Path, seed: int, job: tuple[str, int, int]) -> tuple[str, str]:
    """Write one video; return its path and the SHA-256 of its frames as they come out of the decoder.

    The hash is not that of the file, because versions of the encoder differ.
    """
    split, label, index = job
    path = f"{split}/{CLASSES[label]}/v_{CLASSES[label]}_g{index:03d}_c01.mp4"
    write_video(folder / path, torch.from_numpy(render(split, label, index, seed)), FPS)
    return path, hashlib.sha256(read_frames(folder / path, range(FRAMES)).numpy().tobytes()).hexdigest()


def _put_in_place(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not (folder / MANIFEST).is_file():
            raise


def _make(folder: Path) -> None:
    total = len(CLASSES) * sum(PER_CLASS.values())
    sys.stderr.write(f"making motion10 ({total:,} videos, once) in {folder} ... ")
    sys.stderr.flush()
    start = time.monotonic()
    build(folder)
    sys.stderr.write(f"done in {time.monotonic() - start:.0f} s\n")


def _read_manifest(folder: Path) -> dict[str, str]:
    try:
        videos: dict[str, str] = json.loads((folder / MANIFEST).read_text())["videos"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is not a motion10 folder ({error!r}); remove it to have it made again") from error
    return videos


def home_folder() -> Path:
    """Return ``$ROBUSTVID_HOME``, else this platform's cache folder for robustvid."""
    return Path(os.environ.get("ROBUSTVID_HOME") or platformdirs.user_cache_path("robustvid"))
