"""Video files to uint8 RGB frames and back, frame by frame exact, through PyAV (FFmpeg).

PyAV is imported on first use: ``import robustvid.data`` works without it.
"""

from __future__ import annotations

import itertools
import os
import uuid
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustvid.codec import encode, need_av
from robustvid.data.frame_folder import image_files, read_images
from robustvid.errors import DataError, DecodeError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

MAX_PIXELS = 2**25
"""Largest frame that is decoded, in pixels: 8K UHD (7680x4320) is just inside."""


# Playlists are left out: FFmpeg knows them by what they hold, whatever they are called, and opens what they name.
_FORMATS = (
    "3gp,apng,asf,av1,avi,flv,gif,h264,hevc,ivf,jpeg_pipe,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,nut,obu,ogg,"
    "png_pipe,rm,wav,webm,webp_pipe,yuv4mpegpipe"
)
_ONLY = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
# A stream may be a playlist, but it cannot name files of this machine.
_STREAMS = {
    "format_whitelist": f"{_FORMATS},hls,mpjpeg,rtsp,sdp,rtp",
    "protocol_whitelist": "crypto,http,httpproxy,https,rtmp,rtmps,rtp,rtsp,srt,srtp,tcp,tls,udp",
    "rtsp_transport": "tcp",  # over UDP, lost packets are grey blocks
}


def read_frames(path: str | Path, indices: Sequence[int]) -> Tensor:
    """Return the frames of a video with these numbers, exactly.

    Frames are numbered from 0 in the order in which they are shown. Where the container keeps to its own times,
    decoding begins at the key frame before each frame; where it does not (every AVI, streams without times, seeks that
    land too late, as in MPEG-TS), at the beginning. Damaged packets are skipped; a frame that cannot be decoded is
    replaced by the one before it, as players do, unless that befalls more than half of the frames asked for. Of
    several video streams FFmpeg's choice is read. A rotation in the metadata is applied, rounded to quarter turns.
    Where the resolution changes, frames are scaled to the first one's size.

    Args:
        path: a video file in any format that FFmpeg reads, or a folder of numbered images, one a frame.
        indices: frame numbers, in any order and with repetitions.

    Returns:
        uint8 RGB, ``(len(indices), H, W, 3)``.

    Raises:
        DecodeError: the file cannot be read, or it has no frame with such a number.
    """
    if not indices or min(indices) < 0:
        raise DecodeError(path, f"frames {list(indices)} were asked for; wanted at least one number, none negative")
    if Path(path).is_dir():
        return read_images(path, indices)
    wanted = sorted(set(indices))
    times = _times(path)
    frames = None if times is None else _seek(path, times, wanted)
    if frames is None:
        frames = _play(path, times, wanted)
    return torch.from_numpy(np.stack([frames[index] for index in indices]))


def count_frames(path: str | Path) -> int:
    """Return how many frames a video has: from the times of its packets, or counted, because headers lie.

    Raises:
        DecodeError: the file cannot be read, or has no frame.
    """
    if Path(path).is_dir():
        return len(image_files(path))
    times = _times(path)
    if times is not None:
        n = len(times.numbers)
    else:
        with _frames(path) as frames:
            n = sum(1 for _ in frames)
    if n == 0:
        raise DecodeError(path, _NO_FRAME)
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
    need_av()
    from av.error import FFmpegError

    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        encode(
            temporary,
            frames.cpu().numpy(),
            Fraction(fps).limit_denominator(1001),
            codec=codec,
            crf=crf,
            pixel_format=pixel_format,
        )
        temporary.replace(path)
    except (FFmpegError, TypeError, ValueError, OSError) as error:
        raise DataError(f"cannot write {path} with {codec} as {pixel_format}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


class _Times(NamedTuple):
    """When frames are shown: ``numbers`` by time, and in ascending order the numbers and times of the key frames."""

    numbers: dict[int, int]
    key_numbers: list[int]
    key_times: list[int]

    def number(self, frame: av.VideoFrame) -> int:
        """Return the number of a decoded frame, -1 where no packet had its time."""
        return -1 if frame.pts is None else self.numbers.get(frame.pts, -1)

    def key(self, number: int) -> int:
        """Return which key frame is the last one at or before frame ``number``."""
        return max(0, bisect_right(self.key_numbers, number) - 1)


_NO_FRAME = "not one frame can be decoded; the file was probably cut short"


def _times(path: str | Path) -> _Times | None:
    """Return the times of all frames, from the packets alone; None where the container has none to rely on."""
    path = Path(path)
    _check_file(path)
    stat = path.stat()
    return _read_times(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _read_times(path: Path, _changed: int, _size: int) -> _Times | None:
    from av.error import FFmpegError

    with open_video(path) as (container, stream):
        if container.format.name == "avi":  # has no times; FFmpeg's guesses are in the wrong order with B-frames
            return None
        times: list[int] = []
        keys: list[int] = []
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, FFmpegError):
                break
            if packet.size and not packet.is_discard:
                if packet.pts is None:
                    return None
                times.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
    if len(set(times)) < len(times) or (times and not keys):
        return None
    numbers = {time: number for number, time in enumerate(sorted(times))}
    keys.sort()
    return _Times(numbers, [numbers[time] for time in keys], keys)


def _seek(path: str | Path, times: _Times, wanted: Sequence[int]) -> dict[int, NDArray[np.uint8]] | None:
    """Return the frames, read from the key frames before them; None where one is not where it should be."""
    if wanted[-1] >= len(times.numbers):
        return None
    kept: dict[int, NDArray[np.uint8]] = {}
    with open_video(path) as (container, stream):
        frames, to_rgb, last = decoded(container, stream), None, -1
        for target in wanted:
            key = times.key(target)
            if times.key_numbers[key] > last + 1:
                container.seek(times.key_times[key], stream=stream)
                frames = _arrive(decoded(container, stream), times, times.key_numbers[key])
                last = times.key_numbers[key] - 1
            for frame in frames:
                last += 1
                if times.number(frame) != last:
                    return None
                if last == target:
                    to_rgb = to_rgb or ToRgb(frame)
                    kept[target] = to_rgb(frame)
                    break
            if target not in kept:
                return None
    return kept


def _arrive(frames: Iterator[av.VideoFrame], times: _Times, key: int) -> Iterator[av.VideoFrame]:
    """Yield the frames from a key frame on: those shown before it were decoded without what they need."""
    return itertools.dropwhile(lambda frame: 0 <= times.number(frame) < key, frames)


def _play(path: str | Path, times: _Times | None, wanted: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """Return the frames, decoded from the beginning; numbered as they come where there are no times to rely on."""
    kept: dict[int, NDArray[np.uint8]] = {}
    waiting, held, number = deque(wanted), 0, -1
    shown: av.VideoFrame | None = None
    with _frames(path) as frames:
        for frame in frames:
            before, number = number, number + 1 if times is None else times.number(frame)
            if number <= before:
                return _play(path, None, wanted)
            if shown is None:
                to_rgb, shown = ToRgb(frame), frame
            while waiting and waiting[0] <= number:
                held += waiting[0] < number
                kept[waiting[0]] = to_rgb(frame if waiting[0] == number else shown)
                waiting.popleft()
            shown = frame
            if not waiting:
                break
        if shown is None:
            raise DecodeError(path, _NO_FRAME)
        n = number + 1 if times is None else len(times.numbers)
        if wanted[-1] >= n:
            raise DecodeError(path, f"frame {wanted[-1]} was asked for, but only {n} frames can be decoded")
        held += len(waiting)
        if 2 * held > len(wanted):
            raise DecodeError(path, f"only {len(wanted) - held} of the {len(wanted)} frames asked for can be decoded")
        return kept | {target: to_rgb(shown) for target in waiting}


@contextmanager
def _frames(path: str | Path) -> Iterator[Iterator[av.VideoFrame]]:
    """Lend the decoded frames of ``path`` in display order."""
    with open_video(path) as (container, stream):
        yield decoded(container, stream)


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Lend the opened file and its video stream.

    Raises:
        DecodeError: whatever goes wrong meanwhile.
    """
    with _told_as_decode_errors(path, "; is it a video, and complete?"):
        import av

        _check_file(Path(path))
        with av.open(os.fspath(path), mode="r", options=_ONLY) as container:
            yield container, _video_stream(path, container)


@contextmanager
def open_stream(url: str, timeout: float, device: str | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Lend an opened network stream or camera, and its video stream.

    Args:
        url: address of a stream, or name of the camera.
        timeout: seconds without a byte after which it counts as lost.
        device: FFmpeg's name of the kind of camera; None for a network stream.

    Raises:
        DecodeError: whatever goes wrong meanwhile.
    """
    with _told_as_decode_errors(url):
        import av

        options = {} if device else _STREAMS
        with av.open(url, mode="r", format=device, options=options, timeout=timeout) as container:
            yield container, _video_stream(url, container)


@contextmanager
def _told_as_decode_errors(source: str | Path, hint: str = "") -> Iterator[None]:
    need_av()
    from av.error import ExitError, FFmpegError

    try:
        yield
    except DecodeError:
        raise
    except ExitError as error:
        raise DecodeError(source, "nothing came for too long") from error
    except (FFmpegError, OSError, ValueError, IndexError) as error:  # IndexError: streams that appear on the way
        said = getattr(error, "strerror", None) or error
        raise DecodeError(source, f"{said}{hint}") from error


def _check_file(path: Path) -> None:
    if not path.exists():
        raise DecodeError(path, "there is no such file")
    if not path.is_file():
        raise DecodeError(path, "it is not a file that can be read again and again; wanted a video file")
    if path.stat().st_size == 0:
        raise DecodeError(path, "the file is empty")


def _video_stream(path: str | Path, container: InputContainer) -> VideoStream:
    import av

    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        raise DecodeError(path, "it has no video stream")
    if stream.codec_context is None:
        raise DecodeError(path, "FFmpeg has no decoder for its codec")
    if stream.width * stream.height > MAX_PIXELS:
        raise DecodeError(path, f"its frames are {stream.width}x{stream.height}; up to {MAX_PIXELS} pixels are decoded")
    # FFmpeg's own threads can hang in forked loader processes; slices are the kind that does not.
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "SLICE"
    return stream


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield what can be decoded from here on, in display order."""
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


class ToRgb:
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
