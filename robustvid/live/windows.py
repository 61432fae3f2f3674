"""From single frames to clips: a buffer of the newest ones, and a place where one clip waits."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from robustvid.contracts import ClipSpec
from robustvid.data.decode import ToRgb
from robustvid.data.sampling import clip_indices
from robustvid.data.transforms import fit_frames, from_clips, to_clips
from robustvid.errors import ClipError, DataError
from robustvid.live.sources import Arrival

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    RgbFrame = NDArray[np.uint8]


class Window(NamedTuple):
    """A clip of a stream.

    Attributes:
        frames: uint8 RGB ``(T, H, W, 3)``, as the model takes them.
        last: number of its last frame in the source.
        time: of its last frame, in seconds of the source.
        due: ``time.perf_counter()`` when its last frame was there to be had.
        period: seconds of the source between two windows.
        fresh: whether it is the first one after a gap.
        shown: its frames as they came, with those before it that are kept, uint8 RGB ``(H, W, 3)`` each, and the
            frames a second; None where none are kept.
    """

    frames: Tensor
    last: int
    time: float
    due: float
    period: float
    fresh: bool
    shown: tuple[list[RgbFrame], float] | None


class Buffer:
    """The newest frames, from which every so many frames a window is cut.

    Args:
        clip: how the model takes clips.
        span: frames that a window covers.
        every: frames between two windows.
        delta: a perturbation that is added to the stream over and over, one of its frames for every ``clip.stride``
            frames; None for none.
        keep: seconds before a window from which frames are kept as they came; None keeps none.

    Attributes:
        span: as given.
        every: as given.
        period: seconds of the source in which ``every`` frames come; 0 before two have come.

    Raises:
        ClipError: the perturbation is not for such clips.
    """

    def __init__(self, clip: ClipSpec, span: int, every: int, delta: Tensor | None, keep: float | None) -> None:
        self.span, self.every = span, every
        self._clip, self._keep = clip, keep
        self._delta = None if delta is None else _check_perturbation(delta, clip)
        self._fitted: deque[Tensor] = deque(maxlen=span)
        self._shown: deque[tuple[float, RgbFrame]] = deque()
        self._to_rgb: ToRgb | None = None
        self._added, self._last, self._fresh = 0, 0.0, True
        self.period = 0.0

    @property
    def resting(self) -> bool:
        """Whether the last frame completed a window, or there is no frame."""
        return self._added == 0 or self._complete()

    def clear(self, *, gap: bool = False) -> None:
        """Forget all frames: what comes next does not follow them; ``gap`` if the source itself was interrupted."""
        for kept in (self._fitted, self._shown):
            kept.clear()
        self._to_rgb, self._added, self._fresh = None, 0, self._fresh or gap

    def add(self, arrival: Arrival) -> Window | None:
        """Take a frame in; return the window that it completes, if it does."""
        self._to_rgb = self._to_rgb or ToRgb(arrival.frame)
        rgb = self._to_rgb(arrival.frame)
        fitted = fit_frames(torch.from_numpy(rgb.copy())[None], self._clip)
        self._fitted.append(fitted if self._delta is None else self._perturbed(fitted, arrival.number, self._delta))
        if self._added and arrival.time > self._last:
            self.period = (arrival.time - self._last) * self.every
        self._added, self._last = self._added + 1, arrival.time
        if self._keep is not None:
            self._shown.append((arrival.time, rgb))
            while len(self._shown) > self.span and self._shown[0][0] < arrival.time - self._keep - self.period:
                self._shown.popleft()
        return self._cut(arrival) if self._complete() else None

    def _complete(self) -> bool:
        return self._added >= self.span and (self._added - self.span) % self.every == 0

    def _cut(self, arrival: Arrival) -> Window:
        frames = torch.stack([self._fitted[place] for place in clip_indices(self.span, self._clip)])
        frames = frames.transpose(0, 1).flatten(0, 1)  # one crop after the other
        fresh, self._fresh = self._fresh, False
        shown = ([rgb for _, rgb in self._shown], self.every / self.period) if self._shown and self.period else None
        return Window(frames, arrival.number, arrival.time, arrival.due, self.period, fresh, shown)

    def _perturbed(self, fitted: Tensor, number: int, delta: Tensor) -> Tensor:
        """Return the frame's crops with the perturbation's frame of this moment, in 8 bits as a stream has them."""
        place = number // self._clip.stride % self._clip.frames
        changed = to_clips([fitted]) + delta[:, :, place :: self._clip.frames]
        return from_clips(changed.clamp(0, 1))[0]


class Slot:
    """A place for one window: the newest, or, where ``put`` may wait, the next."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._window: Window | None = None
        self._closed = False
        self._error: BaseException | None = None

    def put(self, window: Window, *, wait: bool) -> bool:
        """Put a window there, after the one before was taken if ``wait``; return whether that gave way to it."""
        with self._changed:
            self._changed.wait_for(lambda: not wait or self._window is None or self._closed)
            gave_way, self._window = self._window is not None and not self._closed, window
            self._changed.notify_all()
            return gave_way

    def get(self) -> Window | None:
        """Return the window, waiting for one; None when there will be no more.

        Raises:
            BaseException: what ``close`` was given, after the last window.
        """
        with self._changed:
            while self._window is None and not self._closed:
                self._changed.wait(0.2)  # without a limit, some systems would not let Ctrl-C through
            window, self._window = self._window, None
            self._changed.notify_all()
            if window is None and self._error is not None:
                raise self._error
            return window

    def close(self, error: BaseException | None = None) -> None:
        """Say that no more windows will come, and why if that is a failure."""
        with self._changed:
            self._closed, self._error = True, self._error or error
            self._changed.notify_all()


def span_of(clip: ClipSpec, window: int | None) -> int:
    """Return how many frames of a source a window covers.

    Raises:
        DataError: the model looks at whole videos, and no window was given; or the window is too short.
    """
    if window is None:
        if clip.sampling == "uniform":
            raise DataError("this model looks at frames from all over a video: say how many by window=N or --window N")
        return ((clip.frames - 1) * clip.stride + 1) * clip.views
    if window < clip.frames:
        raise DataError(f"a window of {window} frames is too short for this model's {clip.frames}")
    return window


def _check_perturbation(delta: Any, clip: ClipSpec) -> Tensor:
    if clip.views > 1:
        raise ClipError(f"a stream is perturbed for one view; this model looks at {clip.views}")
    wanted = (1, 3, clip.length, *clip.size)
    if not isinstance(delta, Tensor) or tuple(delta.shape) not in {wanted, (*wanted[:3], 1, 1)}:
        shape = tuple(delta.shape) if isinstance(delta, Tensor) else type(delta).__name__
        raise ClipError(f"the perturbation is {shape}; this model wants {wanted}")
    if not bool(torch.isfinite(delta).all()):
        raise ClipError("the perturbation has values that are not finite")
    return delta.float().cpu()
