"""The plainest way to label videos: one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustvid.classes import read_classes
from robustvid.data.frame_folder import IMAGE_SUFFIXES
from robustvid.data.videos import VIDEO_SUFFIXES, VideoFile, VideoFiles
from robustvid.errors import DataError


class FolderDataset(VideoFiles):
    """Videos as ``root/<split>/<class>/*.mp4``, or without splits as ``root/<class>/*.mp4``.

    Files may be mp4, avi, mkv, webm or mov; a folder of numbered images is a video too. Everything else, and every
    hidden file, is left aside.
    """

    def __init__(
        self, root: str | Path | None = None, split: str = "test", classes: Sequence[str] | str | Path | None = None
    ) -> None:
        """Find the videos.

        Args:
            root: the folder.
            split: name of the folder under ``root``; without such a folder, ``root`` itself holds the classes.
            classes: class folders in the order of the labels, or a file that lists them; sorted by name when not given.

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
        if isinstance(classes, str | Path):
            classes = read_classes(classes)
        classes = sorted(found) if classes is None else classes
        if missing := [name for name in classes if name not in found]:
            raise DataError(f"no videos of {', '.join(missing)} in {home}; it holds {', '.join(sorted(found))}")
        videos = [
            VideoFile(path.relative_to(root).as_posix(), label)
            for label, name in enumerate(classes)
            for path in found[name]
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
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())
    return path.suffix.lower() in VIDEO_SUFFIXES
