"""Watching a source: one thread reads, this one classifies; late windows give way to newer ones."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from threading import Thread
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from robustvid.contracts import check_logits
from robustvid.data.transforms import to_clips
from robustvid.errors import DataError
from robustvid.evaluation.machine import full_float32, pick_device
from robustvid.live.alarms import Alarm, Bell, EventClips
from robustvid.live.sources import Gap, Source
from robustvid.live.windows import Buffer, Slot, Window, span_of
from robustvid.models.classifier import VideoClassifier

_LATENCIES = 100_000  # the newest, for the percentiles
_HURRY = 4.0  # periods behind, at which only leaving frames undecoded can help


class Seen(NamedTuple):
    """What was seen in one window.

    Attributes:
        time: seconds of the source at its last frame.
        frame: number of that frame.
        label: the most likely class.
        confidence: its softmax probability.
        latency: seconds from when its last frame was there to be had to the answer.
        missed: whether the next window was due before the answer was there; never where the source waits.
        alarms: classes whose alarm this window rings.
    """

    time: float
    frame: int
    label: str
    confidence: float
    latency: float
    missed: bool
    alarms: tuple[str, ...]


class Summary(NamedTuple):
    """What watching came to.

    Attributes:
        frames: that the source had.
        windows: that were classified.
        dropped: frames that were left out, because reading them was late.
        skipped: windows that gave way to newer ones, because the model was late.
        missed: windows that were classified only when the next one was due.
        lost: how often a stream was lost.
        alarms: how many rang.
        p50: median latency in milliseconds, of the last 100,000 windows; None without a window.
        p95: latency that 95 % stay below, likewise.
        p99: latency that 99 % stay below, likewise.
    """

    frames: int
    windows: int
    dropped: int
    skipped: int
    missed: int
    lost: int
    alarms: int
    p50: float | None
    p95: float | None
    p99: float | None


class Watch:
    """A model that looks at a source, made by :func:`watch`: iterate, once, for what is seen; leaving it closes it.

    Attributes:
        span: frames that a window covers.
        every: frames between two windows.
    """

    def __init__(
        self, model: VideoClassifier, source: Source, buffer: Buffer, bells: Sequence[Bell], events: EventClips | None
    ) -> None:
        self._model, self._source, self._buffer, self._bells, self._events = model, source, buffer, bells, events
        self.span, self.every = buffer.span, buffer.every
        self._slot = Slot()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._frames = self._windows = self._dropped = self._skipped = self._missed = self._lost = self._alarms = 0
        self._catching_up = False

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self.close()

    def __iter__(self) -> Generator[Seen, None, None]:
        """Yield what is seen, window by window, until the source ends or ``close`` is called.

        Raises:
            DecodeError: the source cannot be read, or a stream not even once.
            ClipError: the model returned anything but finite logits.
        """
        clip = self._model.card.clip
        self._confidences(torch.full((clip.length, *clip.size, 3), 127, dtype=torch.uint8))  # the first is slow
        # A daemon, because it may hang in a read until the stream counts as lost.
        Thread(target=self._read, daemon=True, name="robustvid-live").start()
        try:
            while (window := self._slot.get()) is not None:
                yield self._look(window)
        finally:
            self.close()
            if self._events:
                self._events.close()

    def close(self) -> None:
        """Stop watching; what iterates ends."""
        self._source.close()
        self._slot.close()

    def summary(self) -> Summary:
        """Return what it has come to so far."""
        percentiles = np.percentile(self._latencies, (50, 95, 99)).tolist() if self._latencies else [None] * 3
        return Summary(
            self._frames,
            self._windows,
            self._dropped,
            self._skipped,
            self._missed,
            self._lost,
            self._alarms,
            *(None if value is None else 1000 * value for value in percentiles),
        )

    def _read(self) -> None:
        """Read frames, cut windows and hand them over: the work of the other thread."""
        try:
            for arrival in self._source:
                if isinstance(arrival, Gap):
                    self._lost += arrival.lost
                    self._buffer.clear(gap=True)
                    continue
                left_out = arrival.number - self._frames  # by the source, in a hurry
                self._frames = arrival.number + 1
                if self._late(arrival.due):
                    left_out += 1
                elif (window := self._buffer.add(arrival)) is not None:
                    self._skipped += self._slot.put(window, wait=self._source.waits)
                self._dropped += left_out
            self._dropped += self._source.count - self._frames
            self._frames = self._source.count
        except Exception as error:  # noqa: BLE001  raised again where windows are taken
            self._slot.close(error)
        self._slot.close()

    def _late(self, due: float) -> bool:
        """Return whether to leave a frame out, so that latency stays bounded.

        Where reading is late by more than the time between two windows, frames are left out until it has caught up.
        That begins after a window is complete, so that a machine that is always late still sees something.
        """
        if self._source.waits or not (self._catching_up or self._buffer.resting):
            return False
        lag, limit = time.perf_counter() - due, self._buffer.period / self._source.rate
        late = limit > 0 and lag > (limit / 4 if self._catching_up else limit)
        if late and not self._catching_up:
            self._buffer.clear()
        self._catching_up, self._source.hurry = late, late and lag > _HURRY * limit
        return late

    def _look(self, window: Window) -> Seen:
        confidences = self._confidences(window.frames)
        latency = time.perf_counter() - window.due
        missed = not self._source.waits and latency > window.period / self._source.rate
        rung = tuple(bell.alarm.label for bell in self._bells if bell.rings(window, confidences))
        if self._events:
            for label in rung:
                self._events.write(label, window)
        self._latencies.append(latency)
        self._windows, self._missed = self._windows + 1, self._missed + missed
        self._alarms += len(rung)
        best = max(range(len(confidences)), key=confidences.__getitem__)
        label = self._model.card.classes[best]
        return Seen(window.time, window.last, label, confidences[best], latency, missed, rung)

    def _confidences(self, frames: Tensor) -> list[float]:
        clips = to_clips([frames]).to(self._model.mean.device)
        with torch.inference_mode(), full_float32():
            confidences: list[float] = check_logits(self._model(clips), clips).softmax(1)[0].tolist()
        return confidences


def watch(
    model: VideoClassifier,
    source: str | Path,
    *,
    every: int | None = None,
    window: int | None = None,
    speed: float = 1.0,
    alarms: Sequence[Alarm] = (),
    events: str | Path | None = None,
    perturbation: Tensor | None = None,
    stall: float = 10.0,
    device: str | torch.device | None = None,
) -> Watch:
    """Classify a source window by window, as it plays.

    One thread reads and cuts windows, the one that iterates classifies them. At most one window waits: where the model
    is late, it gives way to the next, and where reading is late, frames are left out. Neither happens to a folder, or
    at speed 0: they wait. Memory is bounded.

    Args:
        model: a video classifier; a copy is used.
        source: path of a video file, or of a folder into which files are written, each read once it has stopped
            growing, in the order of their times; number of a camera; or an address such as ``rtsp://camera/stream``.
            A stream that is lost is tried again after 0.5, 1, 2, up to 30 seconds; windows never bridge a gap.
        every: frames between two windows; half a window when None.
        window: frames that a window covers; what the model's clips cover when None.
        speed: of a file, in times its own; 0 looks at every window however long it takes.
        alarms: when to ring.
        events: folder for clips of what rang: the frames of the window and of the alarm's hold, as they came.
        perturbation: ``(1, 3, T, H, W)`` or ``(1, 3, T, 1, 1)``, such as ``universal`` leaves in the folder
            ``perturbations`` of a run; it is added to the stream over and over and rounded to 8 bits.
        stall: seconds without a byte after which a stream counts as lost.
        device: a GPU where there is one when None.

    Raises:
        DataError: there is no such source, or a number means nothing.
        UnknownNameError: the model has no class of an alarm.
        ClipError: the perturbation is not for this model.

    Example:
        >>> with rv.live.watch(rv.load_model("conv3d"), "door.mp4") as stream:  # doctest: +SKIP
        ...     for seen in stream:
        ...         print(seen.time, seen.label, seen.confidence)
    """
    clip = model.card.clip
    span = span_of(clip, window)
    every = max(1, span // 2) if every is None else every
    if every < 1 or not 0 <= speed < float("inf") or not stall > 0:
        raise DataError(f"every={every}, speed={speed:g}, stall={stall:g}: wanted at least 1, at least 0, more than 0")
    bells = [Bell(alarm, model.card.classes) for alarm in alarms]
    # Frames as they came are large: they are kept only where clips are written.
    keep = max((alarm.hold for alarm in alarms), default=0.0) if events else None
    return Watch(
        copy.deepcopy(model).eval().requires_grad_(False).to(pick_device(device)),
        Source(source, speed, stall),
        Buffer(clip, span, every, perturbation, keep),
        bells,
        EventClips(Path(events)) if events else None,
    )
