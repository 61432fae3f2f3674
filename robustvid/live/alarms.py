"""Alarms on a stream: a class that stays likely for a while."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import numpy as np
import torch

from robustvid.data.decode import write_video
from robustvid.errors import DataError, UnknownNameError
from robustvid.live.windows import Window
from robustvid.registry import did_you_mean

log = logging.getLogger("robustvid")

_MOST_WAITING = 4


@dataclass(frozen=True)
class Alarm:
    """When to ring.

    Attributes:
        label: name of the class.
        threshold: confidence, in (0, 1], that the class has to have.
        hold: seconds of the source for which it has to have it without a break.
    """

    label: str
    threshold: float
    hold: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what could never ring, or always would.

        Raises:
            DataError: threshold or hold is out of range.
        """
        if not (0 < self.threshold <= 1 and 0 <= self.hold < float("inf")):
            raise DataError(
                f"an alarm with threshold {self.threshold:g} and hold {self.hold:g}; wanted a confidence in (0, 1] and "
                "seconds from 0 up"
            )

    @classmethod
    def parse(cls, text: str) -> Alarm:
        """Return the alarm written as ``LABEL:THRESHOLD`` or ``LABEL:THRESHOLD:HOLD``.

        Raises:
            DataError: it is not written so.
        """
        label, *numbers = text.split(":")
        try:
            threshold, hold = map(float, [*numbers, "0"][:2]) if 1 <= len(numbers) <= 2 else (0.0, 0.0)
        except ValueError:
            threshold, hold = 0.0, 0.0
        if not label or threshold == 0:
            raise DataError(f"{text!r} is no alarm; wanted LABEL:THRESHOLD or LABEL:THRESHOLD:HOLD, such as left:0.8:2")
        return cls(label, threshold, hold)


class Bell:
    """An alarm at work: it rings once when its class has held, and again only after the class has let go.

    Args:
        alarm: when to ring.
        classes: of the model.

    Raises:
        UnknownNameError: the model has no such class.
    """

    def __init__(self, alarm: Alarm, classes: Sequence[str]) -> None:
        if alarm.label not in classes:
            shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
            raise UnknownNameError(f"no class {alarm.label!r}.{did_you_mean(alarm.label, classes)} There are: {shown}.")
        self.alarm, self._place = alarm, list(classes).index(alarm.label)
        self._since: float | None = None
        self._rung = False

    def rings(self, window: Window, confidences: Sequence[float]) -> bool:
        """Take note of a window and return whether the alarm rings now."""
        held = confidences[self._place] >= self.alarm.threshold
        if window.fresh or not held:
            self._since, self._rung = None, False
        if not held:
            return False
        if self._since is None:
            self._since = window.time
        if self._rung or window.time - self._since < self.alarm.hold:
            return False
        self._rung = True
        return True


class EventClips:
    """Writes what rang an alarm as MP4 files, on a thread of its own; at most four wait.

    Args:
        folder: where; made where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._waiting = BoundedSemaphore(_MOST_WAITING)
        self._writer = ThreadPoolExecutor(1)

    def write(self, label: str, window: Window) -> None:
        """Begin to write the frames of a window and those kept before it."""
        if window.shown is None:
            return
        if not self._waiting.acquire(blocking=False):
            log.warning("alarms ring faster than their clips can be written: one of %s is left out", label)
            return
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", label)
        self._writer.submit(self._write, self._folder / f"{moment}Z-{name}.mp4", *window.shown)

    def close(self) -> None:
        """Finish what was begun."""
        self._writer.shutdown()

    def _write(self, path: Path, shown: Sequence[Any], fps: float) -> None:
        try:
            frames = torch.from_numpy(np.stack(shown))
            write_video(path, frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2], fps)
        except (DataError, ValueError) as error:
            log.warning("no clip of an alarm: %s", error)
        finally:
            self._waiting.release()
