"""Labelled videos whose frames can be read by number, whatever keeps them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from robustvid.contracts import ClipSpec, Sample
from robustvid.data.decode import count_frames, read_frames
from robustvid.data.sampling import clip_indices
from robustvid.data.transforms import fit_frames
from robustvid.errors import DataError, printable

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".webm", ".mov"})


class IndexedVideos(ABC):
    """A ``VideoDataset`` whose frames can be read by number.

    Attributes:
        name: name of the dataset.
        split: name of the split.
        classes: label names in the order of the labels.
        ids: one unique name per video.
        labels: one label per video.
    """

    def __init__(
        self, name: str, split: str, classes: Sequence[str], ids: Sequence[str], labels: Sequence[int]
    ) -> None:
        self.name, self.split = name, split
        self.classes: Sequence[str] = tuple(classes)
        self.ids, self.labels = list(ids), list(labels)

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self.ids)

    @abstractmethod
    def frame_count(self, index: int) -> int:
        """Return the number of frames of video ``index``.

        Raises:
            DecodeError: the video cannot be read.
        """

    @abstractmethod
    def read(self, index: int, numbers: Sequence[int]) -> Tensor:
        """Return frames of video ``index`` by number, uint8 RGB ``(len(numbers), H, W, 3)``.

        Raises:
            DecodeError: the video cannot be read.
        """

    def cut(self, index: int, numbers: Sequence[int], clip: ClipSpec) -> Tensor:
        """Return frames of video ``index`` by number, scaled and cropped as ``clip`` says.

        Raises:
            DecodeError: the video cannot be read.
        """
        return fit_frames(self.read(index, numbers), clip)

    def sample(self, index: int, clip: ClipSpec) -> Sample:
        """Return the evaluation clip of video ``index``, scaled and cropped as ``clip`` says.

        Raises:
            DecodeError: the video cannot be read.
        """
        numbers = clip_indices(self.frame_count(index), clip)
        return Sample(self.ids[index], self.cut(index, numbers, clip), self.labels[index])


class VideoFile(NamedTuple):
    """A file, or a folder of frames, by its path under the root; videos of one group must not be split."""

    path: str
    label: int
    group: str = ""


class VideoFiles(IndexedVideos):
    """Video files, or folders of frames, whose labels are known.

    Videos are put in an order that takes one of each class in turn, so that the first N are balanced. Each is named by
    its path under ``root`` without the suffix, with ``/``.

    Attributes:
        groups: what each video belongs to that must not be in two splits, such as UCF101's ``g07``; ``""`` where
            nothing is known.
    """

    def __init__(self, name: str, split: str, classes: Sequence[str], root: Path, videos: Sequence[VideoFile]) -> None:
        """Take ``videos`` by their paths under ``root``.

        Raises:
            DataError: there are none, or two differ in nothing but the suffix.
        """
        if not videos:
            raise DataError(f"{name} has no videos in split {split!r} under {root}")
        ordered = _in_turn(videos)
        ids = [printable(_without_suffix(video.path)) for video in ordered]
        super().__init__(name, split, classes, ids, [video.label for video in ordered])
        self.root = root
        self.groups = [video.group for video in ordered]
        self._paths = [video.path for video in ordered]
        self._counts: dict[int, int] = {}
        id_, times = Counter(self.ids).most_common(1)[0]
        if times > 1:
            raise DataError(f"{times} videos in {root} are called {id_}; rename or remove all but one")

    def path(self, index: int) -> Path:
        """Return the file, or the folder of frames, of video ``index``."""
        return self.root / self._paths[index]

    def frame_count(self, index: int) -> int:
        """Return the number of frames of video ``index``, counted once.

        Raises:
            DecodeError: the video cannot be read.
        """
        if index not in self._counts:
            self._counts[index] = count_frames(self.path(index))
        return self._counts[index]

    def read(self, index: int, numbers: Sequence[int]) -> Tensor:
        """Return frames of video ``index`` by number, as :func:`read_frames` does."""
        return read_frames(self.path(index), numbers)


def _without_suffix(path: str) -> str:
    stem, _, suffix = path.rpartition(".")
    return stem if f".{suffix.lower()}" in VIDEO_SUFFIXES else path


def _in_turn(videos: Sequence[VideoFile]) -> list[VideoFile]:
    seen: Counter[int] = Counter()
    turns = []
    for video in videos:
        turns.append((seen[video.label], video.label, video.path, video))
        seen[video.label] += 1
    return [turn[-1] for turn in sorted(turns)]
