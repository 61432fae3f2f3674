"""Video files to uint8 RGB frames and back, frame by frame exact, through PyAV (FFmpeg).

PyAV is imported on first use: ``import robustvid.data`` works without it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from robustvid.errors import DataError, DecodeError, MissingPackageError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

MAX_PIXELS = 2**25
"""Largest frame that is decoded, in pixels: 8K UHD (7680x4320) is just inside."""


def read_frames(path: str | Path, indices: Sequence[int]) -> Tensor:
    """Return the frames of a video with these numbers, exactly.

    Frames are numbered from 0 in the order in which they are shown. Decoding runs from the first frame to the
    largest index: no seeking, which containers get wrong. Damaged packets are skipped, so the frames behind
    them are still found; what cannot be decoded has no number. Of several video streams FFmpeg's choice is
    read. A rotation in the metadata is applied, rounded to quarter turns. Where the resolution changes, frames
    are scaled to the first one's size.

    Args:
        path: a video file in any format that FFmpeg reads.
        indices: frame numbers, in any order and with repetitions.

    Returns:
        uint8 RGB, ``(len(indices), H, W, 3)``.

    Raises:
        DecodeError: the file cannot be read, or it has no frame with such a number.
    """
    if not indices or min(indices) < 0:
        raise DecodeError(path, f"frames {list(indices)} were asked for; wanted at least one number, none negative")
    wanted, last = set(indices), max(indices)
    kept: dict[int, NDArray[np.uint8]] = {}
    seen = 0
    with _frames(path) as frames:
        for seen, frame in enumerate(frames, start=1):
            if seen == 1:
                to_rgb = _ToRgb(frame)
            if seen - 1 in wanted:
                kept[seen - 1] = to_rgb(frame)
            if seen > last:
                break
    if seen <= last:
        raise DecodeError(path, f"frame {last} was asked for, but only {seen} frames can be decoded")
    return torch.from_numpy(np.stack([kept[index] for index in indices]))


def count_frames(path: str | Path) -> int:
    """Return how many frames can be decoded: counted, because headers lie.

    Raises:
        DecodeError: the file cannot be read, or not one frame of it can.
    """
    with _frames(path) as frames:
        n = sum(1 for _ in frames)
    if n == 0:
        raise DecodeError(path, "not one frame can be decoded; the file was probably cut short")
    return n


def write_video(
    path: str | Path,
    frames: Tensor,
    fps: Fraction | float,
    codec: str = "libx264",
    crf: int = 18,
    *,
    pixel_format: str = "yuv420p",
) -> None:
    """Write frames as a video file, whole or not at all (a temporary file is renamed into place).

    Args:
        path: file to write; the suffix chooses the container.
        frames: uint8 RGB, ``(T, H, W, 3)``; H and W must be even for ``yuv420p``.
        fps: frames per second.
        codec: FFmpeg's name of the encoder. ``libx264rgb`` with ``crf=0`` and ``rgb24`` loses nothing.
        crf: constant rate factor, 0 (best) to 51 (worst), for encoders that know it.
        pixel_format: FFmpeg's name of the format that is encoded.

    Raises:
        DataError: these are not such frames, or FFmpeg refuses to write them.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or frames.numel() == 0:
        raise DataError(f"frames are {frames.dtype} {tuple(frames.shape)}; wanted uint8 (T, H, W, 3), not empty")
    _need_av()
    from av.error import FFmpegError

    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        _encode(
            temporary,
            frames.cpu().numpy(),
            Fraction(fps).limit_denominator(1001),
            codec,
            crf,
            pixel_format=pixel_format,
        )
        temporary.replace(path)
    except (FFmpegError, TypeError, ValueError, OSError) as error:
        raise DataError(f"cannot write {path} with {codec} as {pixel_format}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _need_av() -> None:
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(f"video files are read and written with PyAV, which is missing: {error}") from None


def _encode(path: Path, frames: NDArray[np.uint8], fps: Fraction, codec: str, crf: int, *, pixel_format: str) -> None:
    import av
    from av.video.reformatter import VideoReformatter

    with av.open(os.fspath(path), mode="w") as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": str(crf), "preset": "veryfast"})
        if not isinstance(stream, av.VideoStream):
            raise ValueError(f"{codec} is not a video encoder")
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        reformatter = VideoReformatter()
        for frame in frames:
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(reformatter.reformat(rgb, format=pixel_format, threads=1)))
        container.mux(stream.encode(None))


@contextmanager
def _frames(path: str | Path) -> Iterator[Iterator[av.VideoFrame]]:
    """Lend the decoded frames of ``path`` in display order; every failure leaves as one DecodeError."""
    _need_av()
    import av
    from av.error import FFmpegError

    try:
        _check_file(Path(path))
        with av.open(os.fspath(path), mode="r") as container:
            yield _decoded(container, _video_stream(path, container))
    except DecodeError:
        raise
    except (FFmpegError, OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise DecodeError(path, f"{said}; is it a video, and complete?") from error


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise DecodeError(path, "it is a directory; wanted a video file")
    if not path.exists():
        raise DecodeError(path, "there is no such file")
    if path.stat().st_size == 0:
        raise DecodeError(path, "the file is empty")


def _video_stream(path: str | Path, container: InputContainer) -> VideoStream:
    import av

    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        raise DecodeError(path, "it has no video stream")
    if stream.width * stream.height > MAX_PIXELS:
        raise DecodeError(path, f"its frames are {stream.width}x{stream.height}; up to {MAX_PIXELS} pixels are decoded")
    # FFmpeg's own threads can hang in forked loader processes; slices are the kind that does not.
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "SLICE"
    return stream


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    from av.error import FFmpegError

    packets = container.demux(stream)
    while True:
        try:
            frames = next(packets).decode()
        except StopIteration:
            break
        except FFmpegError:
            continue
        yield from frames


class _ToRgb:
    """Turns decoded frames into RGB arrays, all of the size and rotation of ``first``."""

    def __init__(self, first: av.VideoFrame) -> None:
        from av.video.reformatter import VideoReformatter

        self._width, self._height = first.width, first.height
        self._quarter_turns = round(first.rotation / 90)
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return ``frame`` as uint8 ``(H, W, 3)``."""
        # One thread: swscale's own threads cost three to nine times the CPU time and gain nothing here.
        rgb = self._reformatter.reformat(frame, self._width, self._height, "rgb24", threads=1).to_ndarray()
        return np.rot90(rgb, self._quarter_turns)
