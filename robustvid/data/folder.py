"""Labelled video files, and the plainest way to label them: one folder per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from robustvid.contracts import ClipSpec, Sample
from robustvid.data.decode import count_frames, read_frames
from robustvid.data.sampling import centre_clip_indices
from robustvid.data.transforms import resize_frames
from robustvid.errors import DataError

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".webm", ".mov"})


class VideoFiles:
    """A ``VideoDataset`` over video files whose labels are known.

    Videos are put in an order that takes one of each class in turn, so that the first N are balanced.

    Attributes:
        name: name of the dataset.
        split: name of the split.
        classes: label names in the order of the labels.
        ids: one unique name per video: its path under ``root`` without the suffix, with ``/``.
        labels: one label per video.
    """

    def __init__(
        self, name: str, split: str, classes: Sequence[str], root: Path, videos: Sequence[tuple[str, int]]
    ) -> None:
        """Take ``videos`` as pairs of a path under ``root`` and a label.

        Raises:
            DataError: two videos differ in nothing but the suffix.
        """
        self.name, self.split = name, split
        self.classes: Sequence[str] = tuple(classes)
        ordered = _in_turn(videos)
        self._root = root
        self._paths = [path for path, _ in ordered]
        self._counts: dict[int, int] = {}
        self.labels = [label for _, label in ordered]
        self.ids = [path.rpartition(".")[0] for path in self._paths]
        id_, times = Counter(self.ids).most_common(1)[0]
        if times > 1:
            raise DataError(f"{times} videos in {root} are called {id_}; rename or remove all but one")

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self._paths)

    def path(self, index: int) -> Path:
        """Return the file of video ``index``."""
        return self._root / self._paths[index]

    def frame_count(self, index: int) -> int:
        """Return the number of frames of video ``index``, counted once.

        Raises:
            DecodeError: the file cannot be read.
        """
        if index not in self._counts:
            self._counts[index] = count_frames(self.path(index))
        return self._counts[index]

    def sample(self, index: int, clip: ClipSpec) -> Sample:
        """Return the centred clip of video ``index``, resized and cropped to ``clip.size``.

        Raises:
            DecodeError: the file cannot be read.
        """
        frames = read_frames(self.path(index), centre_clip_indices(self.frame_count(index), clip))
        return Sample(self.ids[index], resize_frames(frames, clip.size), self.labels[index])


class FolderDataset(VideoFiles):
    """Videos as ``root/<split>/<class>/*.mp4``, or without splits as ``root/<class>/*.mp4``.

    Files may be mp4, avi, mkv, webm or mov. Everything else, and every hidden file, is left aside.
    """

    def __init__(
        self, root: str | Path | None = None, split: str = "test", classes: Sequence[str] | None = None
    ) -> None:
        """Find the videos.

        Args:
            root: the folder.
            split: name of the folder under ``root``; without such a folder, ``root`` itself holds the classes.
            classes: class folders in the order of the labels; sorted by name when not given.

        Raises:
            DataError: there is no such folder, no class folder in it, or no video of a class.
        """
        if root is None:
            raise DataError("a folder dataset needs root: the folder with one folder of videos per class")
        root = Path(root).expanduser()
        if not root.is_dir():
            raise DataError(f"there is no folder {root}; wanted one folder of videos per class in it")
        home = root / split if (root / split).is_dir() else root
        found = _videos_by_class(home)
        if not found:
            suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
            raise DataError(f"no videos in {root}/{split}/<class>/ nor in {root}/<class>/; wanted {suffixes}")
        classes = sorted(found) if classes is None else classes
        if missing := [name for name in classes if name not in found]:
            raise DataError(f"no videos of {', '.join(missing)} in {home}; it holds {', '.join(sorted(found))}")
        videos = [
            (path.relative_to(root).as_posix(), label) for label, name in enumerate(classes) for path in found[name]
        ]
        super().__init__(root.resolve().name, split, classes, root, videos)


def _videos_by_class(home: Path) -> dict[str, list[Path]]:
    found = {
        folder.name: sorted(path for path in folder.iterdir() if _is_video(path))
        for folder in home.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    }
    return {name: paths for name, paths in found.items() if paths}


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _in_turn(videos: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    seen: Counter[int] = Counter()
    turns = []
    for path, label in videos:
        turns.append((seen[label], label, path))
        seen[label] += 1
    return [(path, label) for _, label, path in sorted(turns)]
