"""Where frames come from, each with the moment at which it was there to be had."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from robustvid.data.decode import open_stream, open_video
from robustvid.data.videos import VIDEO_SUFFIXES
from robustvid.errors import DataError, DecodeError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

log = logging.getLogger("robustvid")

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a lost stream is tried again: doubled each time
_POLL = 0.5  # seconds between two looks into a folder
_AT_ONCE = 0.005  # a packet that comes sooner lay ready
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}


class Arrival(NamedTuple):
    """One frame.

    Attributes:
        number: of the frame in the whole source, from 0; frames that were left out count.
        time: seconds in the source.
        due: ``time.perf_counter()`` when it was there to be had, never later than now.
        frame: as decoded.
    """

    number: int
    time: float
    due: float
    frame: av.VideoFrame


class Gap(NamedTuple):
    """What comes after this does not follow what came before."""

    lost: bool


class Source:
    """Frames of a file, a folder, a camera or a network stream.

    Iterating yields :class:`Arrival` and :class:`Gap`. A file plays at ``speed`` times its own, a stream at its own; at
    speed 0 every frame is due when it is asked for. A folder's files are read as they appear and once they have stopped
    growing, every frame of them. A stream that was lost is tried again after 0.5, 1, 2, up to 30 seconds.

    Args:
        source: path of a video file, of a folder of them, number of a camera, or an address such as
            ``rtsp://camera/stream``.
        speed: of a file.
        stall: seconds without a byte after which a stream counts as lost.

    Attributes:
        hurry: set it where decoding cannot keep up: packets are then skipped up to the next key frame that is due.
        waits: whether the source waits for its reader, so that nothing need be left out.
        rate: seconds of the source in a second.

    Raises:
        DataError: this is none of these.
    """

    def __init__(self, source: str | Path, speed: float = 1.0, stall: float = 10.0) -> None:
        self.hurry, self._networked = False, False
        self._source, self._stall = str(source), stall
        self._speed = 0.0 if Path(source).is_dir() else speed
        self._stop = Event()
        self._count, self._last, self.rate = 0, 0.0, 1.0
        path = Path(source)
        if path.is_dir():
            self._frames, self.waits = self._folder, True
        elif path.is_file():
            self._frames, self.waits, self.rate = self._file, speed == 0, speed or 1.0
        elif self._source.isdecimal() or "://" in self._source:
            self._frames, self.waits, self._networked = self._stream, speed == 0, True
        else:
            raise DataError(
                f"{source} is no file and no folder; wanted one, the number of a camera, or an address such as "
                "rtsp://camera/stream"
            )

    def __iter__(self) -> Iterator[Arrival | Gap]:
        """Yield frames as they arrive, and gaps.

        Raises:
            DecodeError: a file cannot be read, or a stream not even once.
        """
        return self._frames()

    @property
    def count(self) -> int:
        """Frames so far, with those that were left out."""
        return self._count

    def close(self) -> None:
        """End the iteration, also while it waits."""
        self._stop.set()

    def _file(self) -> Iterator[Arrival | Gap]:
        with open_video(self._source) as opened:
            yield from self._play(opened, paced=True)

    def _folder(self) -> Iterator[Arrival | Gap]:
        folder = Path(self._source)
        read: set[str] = set()
        sizes: dict[str, int] = {}
        while not self._stop.is_set():
            before, sizes = sizes, _sizes(folder)
            read &= sizes.keys()
            for name in sizes:
                if name not in read and before.get(name) == sizes[name]:
                    read.add(name)
                    yield from self._one_of(folder / name)
            self._stop.wait(_POLL)

    def _one_of(self, path: Path) -> Iterator[Arrival | Gap]:
        try:
            with open_video(path) as opened:
                yield from self._play(opened, paced=True, start=self._last)
        except DecodeError as error:
            log.warning("%s; it is left out", error)
        yield Gap(lost=False)

    def _stream(self) -> Iterator[Arrival | Gap]:
        wait, reached = FIRST_WAIT, False
        while not self._stop.is_set():
            begun = self._count
            try:
                with self._connect() as opened:
                    reached, finite = True, opened[0].duration is not None
                    yield from self._play(opened, paced=finite, start=0.0 if finite else self._last)
                if finite or self._stop.is_set():
                    return
                reason = "it ended"
            except DecodeError as error:
                if not reached:
                    raise
                reason = error.reason
            wait = FIRST_WAIT if self._count > begun else min(2 * wait, LONGEST_WAIT)
            log.warning("lost %s: %s; trying again in %g s", self._source, reason, wait)
            yield Gap(lost=True)
            self._stop.wait(wait)

    def _connect(self) -> AbstractContextManager[tuple[InputContainer, VideoStream]]:
        if not self._source.isdecimal():
            return open_stream(self._source, self._stall)
        import av

        kind, name = _CAMERAS.get(sys.platform, ("v4l2", "/dev/video{}"))
        if kind not in av.formats_available:
            raise DecodeError(
                f"camera {self._source}",
                f"this PyAV was built without {kind}. Build it with the FFmpeg of your system "
                f"(pip install av --no-binary av), or let that send a stream: ffmpeg -f {kind} -i "
                f"{name.format(self._source)} -f mpegts udp://127.0.0.1:9000, and read udp://127.0.0.1:9000",
            )
        return open_stream(name.format(self._source), self._stall, kind)

    def _play(
        self, opened: tuple[InputContainer, VideoStream], *, paced: bool, start: float = 0.0
    ) -> Iterator[Arrival | Gap]:
        """Yield the frames of an opened source; its own first time becomes ``start``."""
        container, stream = opened
        clock = _Clock(self._speed if paced else None, start)
        packets, inside = container.demux(stream), 0  # frames that the decoder has begun and not shown
        played = self._last if paced and start == 0 and self._count else -1.0  # before the connection was lost
        while not self._stop.is_set():
            asked = time.perf_counter()
            try:
                packet = next(packets)
            except StopIteration:
                return
            except _ffmpeg_error():
                if self._networked:  # lost; in a file, what is damaged is skipped
                    raise
                continue
            waited = time.perf_counter() - asked > _AT_ONCE
            if packet.pts is not None and self.hurry:
                at = clock.time(packet)
                if not packet.is_keyframe or clock.late(at):
                    self._count += 1
                    continue
                stream.codec_context.flush_buffers()
                self._count, inside, self.hurry = self._count + inside, 0, False
            frames = _decode(packet)
            inside += (packet.size > 0) - len(frames)
            for frame in frames:
                at = clock.time(frame)
                if at <= played:
                    continue
                self._stop.wait(max(0.0, clock.wait(at, waited=waited)))
                yield Arrival(self._count, at, clock.due(at), frame)
                self._count, self._last = self._count + 1, max(at, self._last)


class _Clock:
    """When a frame with a time of its own is due: by a speed, by its arrival, or when it is asked for (speed 0)."""

    def __init__(self, speed: float | None, start: float) -> None:
        self._speed, self._start = speed, start
        self._zero: float | None = None  # time of the first frame, in the source's own counting
        self._began: float | None = None  # perf_counter at which time ``start`` was due
        self._step, self._at = 1 / 25, start

    def time(self, timed: Any) -> float:
        """Return the seconds of a packet or frame; one step after the last where it has none."""
        if timed.pts is None or timed.time_base is None:
            return self._at + self._step
        seconds = float(timed.pts * timed.time_base)
        if self._zero is None:
            self._zero = seconds
        return self._start + seconds - self._zero

    def wait(self, at: float, *, waited: bool) -> float:
        """Take note of a frame, and return how many seconds it is early."""
        now = time.perf_counter()
        if at > self._at:
            self._step = at - self._at
        self._at = at
        if self._speed is None:
            began = now - (at - self._start)
            # A frame that had to be waited for is the newest there is, and none is newer than now.
            self._began = began if waited or self._began is None else min(self._began, began)
            return 0.0
        if self._began is None:
            self._began = now
        return 0.0 if self._speed == 0 else self._due(at) - now

    def due(self, at: float) -> float:
        """Return when the frame was there to be had."""
        now = time.perf_counter()
        return now if self._speed == 0 else min(now, self._due(at))

    def late(self, at: float) -> bool:
        """Return whether a frame of this time should have been shown by now."""
        return self._began is not None and self._due(at) < time.perf_counter()

    def _due(self, at: float) -> float:
        assert self._began is not None  # a frame was taken note of
        return self._began + (at - self._start) / (self._speed or 1.0)


def _decode(packet: av.Packet[VideoStream]) -> list[av.VideoFrame]:
    try:
        return packet.decode()
    except _ffmpeg_error():  # damaged, or from before the first key frame
        return []


def _ffmpeg_error() -> type[Exception]:
    from av.error import FFmpegError

    return FFmpegError


def _sizes(folder: Path) -> dict[str, int]:
    """Return the sizes of the video files in a folder, oldest first."""
    found = []
    for path in folder.iterdir():
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            stat = path.stat()
            found.append((stat.st_mtime_ns, path.name, stat.st_size))
    return {name: size for _, name, size in sorted(found)}
