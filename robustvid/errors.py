"""Everything robustvid raises on purpose, in one tree.

RobustvidError
├── UnknownNameError       a name no registry holds
├── BudgetError            a radius or a combination of radii that means nothing
├── ClipError              a tensor that is not clips, labels or logits as the contract says
├── CardError              a card or battery file that cannot be used
├── AttackError            an attack that broke its contract
├── ModelError             a model or checkpoint that cannot be used
├── DataError              a dataset that cannot be used
│   └── DecodeError        one video file that cannot be read
├── RunError               a run folder that cannot be used
├── LeaderboardError       a board or an entry that cannot be used
├── TrainingStopped        a training that was asked to stop and can go on
└── MissingPackageError    an optional package that is not installed
"""

from __future__ import annotations

from pathlib import Path


class RobustvidError(Exception):
    """Base of every error a user can mend: says what came, what was wanted and what to do."""


class UnknownNameError(RobustvidError, KeyError):
    """A name that no registry holds."""

    def __str__(self) -> str:
        """Return the message as written; KeyError would quote it."""
        return str(self.args[0])


class BudgetError(RobustvidError, ValueError):
    """A radius, or a combination of radii, that means nothing."""


class ClipError(RobustvidError, ValueError):
    """A tensor that is not what the contract says of clips, labels or logits."""


class CardError(RobustvidError, ValueError):
    """A card or battery file that cannot be used."""


class AttackError(RobustvidError, RuntimeError):
    """An attack that broke its contract: left the budget, the range, the shape, or returned NaN."""


class ModelError(RobustvidError, ValueError):
    """A model or checkpoint that cannot be used."""


class DataError(RobustvidError, ValueError):
    """A dataset that cannot be used."""


def printable(path: str | Path) -> str:
    """Return a path as text that can be written anywhere, with escapes for what is no UTF-8 in it."""
    return str(path).encode("utf-8", "backslashreplace").decode()


class DecodeError(DataError):
    """One video file that cannot be read; ``file`` is its path in words."""

    def __init__(self, path: str | Path, reason: str) -> None:
        self.file = printable(path)
        super().__init__(f"cannot read {self.file}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[DecodeError], tuple[Path, str]]:
        """Pickle by the two arguments, so that the error survives a worker process."""
        return DecodeError, (self.path, self.reason)


class RunError(RobustvidError, RuntimeError):
    """A run folder that cannot be used."""


class LeaderboardError(RobustvidError, ValueError):
    """A board or an entry that cannot be used."""


class TrainingStopped(RobustvidError):  # noqa: N818  asked for, and no failure
    """A training that was asked to stop; the same call goes on where it stopped, if it has a folder."""

    def __init__(self, folder: Path | None, step: int, steps: int) -> None:
        kept = f"; everything is kept in {folder}" if folder else "; nothing is kept, for it has no folder"
        super().__init__(f"stopped after {step} of {steps} updates{kept}")


class MissingPackageError(RobustvidError, ImportError):
    """An optional package that is not installed."""
