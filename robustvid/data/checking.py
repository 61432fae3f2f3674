"""What a folder of videos is worth before a model sees it: all decoded, counted and compared."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from robustvid.data.decode import count_frames, decoded, open_video
from robustvid.data.frame_folder import image_files, read_images
from robustvid.data.videos import VIDEO_SUFFIXES, VideoFiles
from robustvid.errors import DataError, DecodeError

SPLITS = ("train", "val", "validation", "test")


@dataclass(frozen=True)
class Listed:
    """A video that is to be checked: where it is, and what is said of it."""

    path: Path
    split: str = ""
    label: str = ""
    group: str = ""


@dataclass(frozen=True)
class Checked:
    """One video after every frame of it was decoded.

    Attributes:
        video: which.
        sha256: of the file, or of all files of a folder of frames; ``""`` where it cannot be read.
        frames: how many frames it has.
        decoded: how many of them can be decoded; fewer where it is damaged.
        seconds: how long it lasts; 0 where the file does not tell.
        width: of the first frame, in pixels.
        height: likewise.
        codec: FFmpeg's name of it; ``"images"`` for a folder of frames.
        error: why it cannot be used; ``""`` where it can.
    """

    video: Listed
    sha256: str = ""
    frames: int = 0
    decoded: int = 0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    error: str = ""

    @property
    def damaged(self) -> bool:
        """Return whether it can be used, but some of its frames are missing."""
        return not self.error and self.decoded < self.frames


def list_dataset(data: VideoFiles) -> list[Listed]:
    """Return the videos of one split of a dataset."""
    return [
        Listed(data.path(index), data.split, data.classes[data.labels[index]], data.groups[index])
        for index in range(len(data))
    ]


def list_folder(root: str | Path) -> list[Listed]:
    """Return every file below ``root`` that is called like a video.

    The split is the first folder on the way where that is one of ``SPLITS``; the label is the name of the last folder.

    Raises:
        DataError: there is no such folder, or no video in it.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    files = sorted(path for path in root.rglob("*") if _is_listed(path.relative_to(root)))
    if not files:
        raise DataError(f"no videos below {root}; wanted {', '.join(sorted(VIDEO_SUFFIXES))}")
    return [_guess(path, path.relative_to(root).parts) for path in files]


def check_videos(videos: Sequence[Listed], jobs: int | None = None) -> Iterator[Checked]:
    """Yield what is found out about each video, in order.

    Args:
        videos: what to check.
        jobs: threads that decode; one a core when None.
    """
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        yield from pool.map(check_video, videos)


def check_video(video: Listed) -> Checked:
    """Decode one whole video."""
    try:
        return _check_images(video) if video.path.is_dir() else _check_file(video)
    except DecodeError as error:
        return Checked(video, error=error.reason)
    except OSError as error:
        return Checked(video, error=error.strerror or str(error))


def leaks(checked: Sequence[Checked]) -> list[str]:
    """Return in words what is in two splits, or under two labels, at once: groups, and files of the same bytes."""
    found = []
    groups, files = defaultdict(set), defaultdict(list)
    for one in checked:
        if one.video.group:
            groups[one.video.label, one.video.group].add(one.video.split)
        if one.sha256:
            files[one.sha256].append(one.video)
    for (label, group), splits in sorted(groups.items()):
        if len(splits) > 1:
            found.append(f"group {group} of {label} is in {' and '.join(sorted(splits))}")
    for videos in files.values():
        splits, labels = {video.split for video in videos}, {video.label for video in videos}
        if len(splits) > 1:
            found.append(f"the same video is in {_each(videos, 'split')}")
        elif len(labels) > 1:
            found.append(f"the same video is labelled {_each(videos, 'label')}")
    return found


def _each(videos: Sequence[Listed], field: str) -> str:
    """Return one path for each value of the field."""
    paths = {getattr(video, field): video.path for video in reversed(videos)}
    return " and ".join(f"{value} ({path})" for value, path in sorted(paths.items()))


def _is_listed(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _guess(path: Path, parts: Sequence[str]) -> Listed:
    split = parts[0] if len(parts) > 1 and parts[0] in SPLITS else ""
    return Listed(path, split, parts[-2] if len(parts) > 1 + bool(split) else "")


def _check_file(video: Listed) -> Checked:
    frames = count_frames(video.path)
    with open_video(video.path) as (container, stream):
        found, size = 0, (0, 0)
        for frame in decoded(container, stream):
            found, size = found + 1, size if found else (frame.width, frame.height)
        rate = stream.average_rate
        codec = stream.codec_context.name
    if not found:
        raise DecodeError(video.path, "not one frame can be decoded")
    seconds = frames / float(rate) if rate else 0.0
    digest = _digest([video.path])
    return Checked(video, digest, frames, found, round(seconds, 3), size[0], size[1], codec)


def _check_images(video: Listed) -> Checked:
    files = image_files(video.path)
    height, width = read_images(video.path, range(len(files))).shape[1:3]
    return Checked(video, _digest(files), len(files), len(files), 0.0, width, height, "images")


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
