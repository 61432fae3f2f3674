"""Attacks of other libraries on video: what holds of them whatever the library does.

A library is shown images and a stand-in for the model (:mod:`robustvid.attacks.layouts`), so that it cannot reach the
model, the caller's clips or the global random state. What it returns is projected into the budget. These are second
opinions: the evaluator measures them like any other attack.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustvid.attacks.best import only_transfers
from robustvid.attacks.layouts import FRAMES, LAYOUTS, STRIP, Layout, Window
from robustvid.budget import Budget, parse_radius
from robustvid.contracts import frozen
from robustvid.errors import AttackError, BudgetError, CardError, MissingPackageError, RobustvidError, UnknownNameError
from robustvid.registry import did_you_mean

REVISION = 1  # of this adapter: raise it when the same library would give other clips
LINF, L2 = ("linf",), ("l2",)
BOTH = LINF + L2
_INPUTS = ("model", "clips", "labels", "budget", "seeds")
_BUDGETED = ("eps", "norm")
_STEPS = ("alpha", "eps_step")
# With these the library draws one random number for several clips, or lets one clip's success stop another.
_COUPLING = ("random_start", "num_random_init", "random_eps", "minimal")


@dataclass(frozen=True)
class Share:
    """A step length in units of the radius; written ``0.25*eps``."""

    of: float

    def __repr__(self) -> str:
        """Return it as it is written on the command line."""
        return f"{self.of:.6g}*eps"


@dataclass(frozen=True)
class Usable:
    """What an attack of a library can do on video, and how.

    Attributes:
        norms: of the budgets it serves.
        layout: what the library is shown, a key of :data:`~robustvid.attacks.layouts.LAYOUTS`.
        bounded: it takes a radius; else it looks for a small perturbation, which is projected into the budget.
        framewise: under an l2 budget of every frame it is shown single frames, so that its ball is the budget.
        separable: clips do not meet in the library, so that several may be attacked at once.
        probabilities: the library wants probabilities rather than logits.
        classes: the fewest that it can handle.
        defaults: knobs whose own default cannot work here.
        extra: knobs that the library's constructor does not have.
    """

    norms: tuple[str, ...] = LINF
    layout: str = STRIP
    bounded: bool = True
    framewise: bool = False
    separable: bool = False
    probabilities: bool = False
    classes: int = 2
    defaults: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        """Return what the library is shown and what happens to its result, in words."""
        ball = "ends inside the budget" if self.bounded else "knows no radius: its result is projected into the budget"
        few = f"; {self.classes} classes or more" if self.classes > 2 else ""
        return f"{LAYOUTS[self.layout]}; {ball}{few}"


class Shown(NamedTuple):
    """One problem as a library gets it; ``norm`` and ``eps`` are the ball, in units of pixels in [0, 1]."""

    window: Window
    images: Tensor
    labels: Tensor
    classes: int
    norm: str
    eps: float
    seed: int


@dataclass(frozen=True)
class Library:
    """A library of attacks.

    Attributes:
        name: what stands before the colon, ``torchattacks`` or ``art``.
        package: name of its distribution, for pip.
        usable: attacks that work on video.
        refused: the others, and why.
        reserved: constructor arguments that robustvid sets.
        constructor: returns the class of that name.
        run: ``(name, shown, settings) -> images``.
        elsewhere: norm to an attack that serves it.
    """

    name: str
    package: str
    usable: Mapping[str, Usable]
    refused: Mapping[str, str]
    reserved: frozenset[str]
    constructor: Callable[[str], Callable[..., Any]]
    run: Callable[[str, Shown, dict[str, Any]], Tensor]
    elsewhere: Mapping[str, str]

    def load(self, name: str) -> LibraryAttack:
        """Return the attack of that name as an attack function.

        Raises:
            UnknownNameError: the library has no such attack.
            CardError: it has, but the attack cannot work on video; says why.
            MissingPackageError: the library is not installed.
        """
        if name in self.refused:
            raise CardError(f"{self.name}:{name} cannot be used on video: {self.refused[name]}")
        if name not in self.usable:
            known = {other.lower(): other for other in (*self.usable, *self.refused)}
            near = known.get(name.lower())
            hint = f" Did you mean {near!r}?" if near else did_you_mean(name, known.values())
            raise UnknownNameError(f"{self.name} has no attack named {name!r}.{hint} See `robustvid list attacks`.")
        return LibraryAttack(self, name)

    def version(self) -> str:
        """Return the installed version."""
        return importlib.metadata.version(self.package)

    def missing(self, error: ImportError) -> MissingPackageError:
        """Return the error to raise when the library cannot be imported."""
        return MissingPackageError(f"{self.name} cannot be imported ({error}): pip install {self.package}")


class LibraryAttack:
    """An attack of another library as an attack function; its knobs are those of the library's constructor.

    A clip that the model gets wrong is left alone, unless the model is a surrogate. The ball that the library is given
    is the budget itself for linf frame and l2 clip; for l2 frame too where the library is shown single frames. For
    every other budget it is the smallest l2 ball around it, and what comes back is projected, so that the result may be
    weaker than an attack that knows the budget. Attacks without a radius are projected likewise. Clips are shown one
    by one, with the global random states set from the clip's own seed, or in groups where clips cannot meet. Cost in
    forwards and backwards: the library's, and one forward.
    """

    def __init__(self, library: Library, name: str) -> None:
        self.library = library
        self.name = name
        self.entry = library.usable[name]
        inputs = [inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD) for key in _INPUTS]
        knobs = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default)
            for key, default in self._knobs().items()
        ]
        self.__signature__ = inspect.Signature(inputs + knobs)
        self.__doc__ = f"{name} of {library.package}: {self.entry.describe()}"

    @property
    def digest(self) -> str:
        """Return what, besides name and parameters, decides what this attack does."""
        return f"{self.library.package}=={self.library.version()}, adapter {REVISION}"

    def check(self, params: Mapping[str, Any]) -> None:
        """Refuse knobs that are not the caller's to set, and steps that mean nothing.

        Raises:
            CardError: says which.
        """
        for key, value in params.items():
            if key in _BUDGETED:
                raise CardError(f"{self.library.name}:{self.name}: {key} comes from the budget and cannot be given")
            if key in self.library.reserved:
                raise CardError(f"{self.library.name}:{self.name}: {key} is set by robustvid and cannot be given")
            if key in _STEPS and isinstance(self._knobs().get(key), Share):
                _step(value, 1.0)

    def __call__(
        self, model: nn.Module, clips: Tensor, labels: Tensor, budget: Budget, seeds: Tensor, **params: Any
    ) -> Tensor:
        """Return what the library makes of the clips, inside the budget.

        Raises:
            BudgetError: the attack has no ball of the budget's norm; says which one has.
            AttackError: the library failed, or returned something else than finite clips.
        """
        self._check_norm(budget)
        settings = self._knobs() | params
        result = clips.clone()
        with frozen(model):
            with torch.no_grad():
                logits = model(clips)
            self._check_classes(logits.shape[1])
            standing = (logits.argmax(1) == labels) | only_transfers(model)
            together = self.entry.separable and not any(settings.get(knob) for knob in _COUPLING)
            for places, ball in _companies(budget, standing, together=together):
                part = places.to(clips.device)
                task = _Task(model, clips[part], labels[part], budget.select(places), ball, int(seeds[places[0]]))
                result[part] = self._attack(task, logits.shape[1], settings)
        return result

    def _attack(self, task: _Task, classes: int, settings: Mapping[str, Any]) -> Tensor:
        clips, budget, ball = task.clips, task.budget, task.ball
        framewise = self.entry.framewise and budget.norm == "l2" and ball.clip is None
        layout = Layout(FRAMES if framewise else self.entry.layout, *clips.shape[2:])
        eps = ball.frame if framewise and ball.frame is not None else ball.radius(budget.norm, layout)
        if eps == 0:
            return clips
        window = Window(task.model, layout, clips, probabilities=self.entry.probabilities)
        labels = task.labels.repeat_interleave(layout.images)
        shown = Shown(window, layout.show(clips), labels, classes, budget.norm, eps, task.seed)
        steps = {key: _step(settings[key], eps) for key in _STEPS if key in settings}
        images = self._run(shown, dict(settings) | steps)
        found = layout.fold(images.detach().to(clips))
        return (clips + budget.project(found - clips)).clamp(0, 1)

    def _run(self, shown: Shown, settings: dict[str, Any]) -> Tensor:
        name = f"{self.library.name}:{self.name}"
        random.seed(shown.seed)
        np.random.seed(shown.seed % 2**32)  # noqa: NPY002  the libraries draw from the global states
        torch.manual_seed(shown.seed)
        try:
            with torch.enable_grad():
                images = self.library.run(self.name, shown, settings)
        except RobustvidError:
            raise
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise
            raise AttackError(f"{name} failed inside the library: {type(error).__name__}: {error}") from error
        if images.shape != shown.images.shape:
            raise AttackError(f"{name} returned {tuple(images.shape)} for images {tuple(shown.images.shape)}")
        if not bool(torch.isfinite(images).all()):
            raise AttackError(f"{name} returned NaN or infinite pixels")
        return images

    def _check_norm(self, budget: Budget) -> None:
        if budget.norm not in self.entry.norms:
            other = self.library.elsewhere[budget.norm]
            raise BudgetError(
                f"{self.library.name}:{self.name} knows {' and '.join(self.entry.norms)} alone, not {budget.norm}; "
                f"use {self.library.name}:{other}"
            )

    def _check_classes(self, classes: int) -> None:
        if classes < self.entry.classes:
            raise AttackError(
                f"{self.library.name}:{self.name} needs {self.entry.classes} classes or more, the model has {classes}"
            )

    def _knobs(self) -> dict[str, Any]:
        """Return the constructor's arguments that are the caller's to set, with their defaults."""
        signature = inspect.signature(self.library.constructor(self.name)).parameters
        defaults = {key: p.default for key, p in signature.items() if p.default is not p.empty}
        knobs = {k: v for k, v in defaults.items() if k not in _BUDGETED and k not in self.library.reserved}
        if "eps" in defaults:  # an absolute step would be wrong at all radii but the default one
            knobs |= {key: Share(knobs[key] / defaults["eps"]) for key in _STEPS if key in knobs}
        return knobs | dict(self.entry.defaults) | dict(self.entry.extra)


class Ball(NamedTuple):
    """The radii of one clip's budget as numbers; clips of the same ball may be attacked together."""

    frame: float | None
    clip: float | None
    frames: int | None

    def radius(self, norm: str, layout: Layout) -> float:
        """Return the radius of the smallest ball of ``norm`` over the whole image that holds the budget."""
        if norm == "linf":
            return self.frame or 0.0
        most = layout.frames if self.frames is None else min(self.frames, layout.frames)
        radii = [self.clip, None if self.frame is None else self.frame * math.sqrt(most)]
        return min(radius for radius in radii if radius is not None)


class _Task(NamedTuple):
    """Clips of one ball that are attacked together."""

    model: nn.Module
    clips: Tensor
    labels: Tensor
    budget: Budget
    ball: Ball
    seed: int


def _companies(budget: Budget, standing: Tensor, *, together: bool) -> Iterator[tuple[Tensor, Ball]]:
    """Yield groups of clips still to be attacked that share a ball, as places on the CPU; each alone by default.

    Groups have 1, 2, 4, ... clips, because a library's mean over the batch is then exact: dividing by a power of two
    changes no bit of a gradient's direction, dividing by three does.
    """
    columns = [_column(getattr(budget, name), len(standing)) for name in ("frame", "clip", "frames")]
    groups: dict[Ball, list[int]] = {}
    for place in standing.nonzero().flatten().tolist():
        groups.setdefault(Ball(*(column[place] for column in columns)), []).append(place)
    for ball, places in groups.items():
        left = places
        while left:
            size = 1 << (len(left).bit_length() - 1) if together else 1
            yield torch.tensor(left[:size]), ball
            left = left[size:]


def _column(value: Any, count: int) -> list[Any]:
    if isinstance(value, Tensor):
        return list(value.flatten().tolist())
    return [value if value is None or isinstance(value, int) else float(value)] * count


def _step(value: Any, eps: float) -> float:
    """Return a step as the library wants it: a number, ``"2/255"``, or a share of the radius such as ``"0.1*eps"``."""
    if isinstance(value, Share):
        return value.of * eps
    if isinstance(value, str):
        share = re.fullmatch(r"\s*([\d.]+)\s*\*\s*eps\s*", value)
        try:
            return float(share[1]) * eps if share else float(parse_radius(value))
        except (BudgetError, ValueError):
            pass
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise CardError(f"{value!r} is not a step: write 0.01, 2/255, or 0.1*eps for a share of the radius")
