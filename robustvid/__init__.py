"""How much may each frame, and the whole clip, be disturbed before a video classifier fails?

Names load on first use, so that ``import robustvid`` costs nothing and ``robustvid --help`` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from robustvid import live
    from robustvid.budget import Budget
    from robustvid.contracts import ClipSpec, ModelCard, Sample, VideoDataset, frozen
    from robustvid.data import load_data, read_frames
    from robustvid.errors import RobustvidError
    from robustvid.evaluation.cards import Attack, Battery, load_attack, load_battery
    from robustvid.evaluation.results import Results
    from robustvid.evaluation.sweep import evaluate
    from robustvid.models import load_model
    from robustvid.models.classifier import VideoClassifier
    from robustvid.training.loop import train
    from robustvid.training.plan import TrainingPlan

_HOMES = {
    "Attack": "robustvid.evaluation.cards",
    "Battery": "robustvid.evaluation.cards",
    "Budget": "robustvid.budget",
    "ClipSpec": "robustvid.contracts",
    "ModelCard": "robustvid.contracts",
    "Results": "robustvid.evaluation.results",
    "RobustvidError": "robustvid.errors",
    "Sample": "robustvid.contracts",
    "TrainingPlan": "robustvid.training.plan",
    "VideoClassifier": "robustvid.models.classifier",
    "VideoDataset": "robustvid.contracts",
    "evaluate": "robustvid.evaluation.sweep",
    "frozen": "robustvid.contracts",
    "load_attack": "robustvid.evaluation.cards",
    "load_battery": "robustvid.evaluation.cards",
    "load_data": "robustvid.data",
    "load_model": "robustvid.models",
    "read_frames": "robustvid.data",
    "train": "robustvid.training.loop",
}

__all__ = [
    "Attack",
    "Battery",
    "Budget",
    "ClipSpec",
    "ModelCard",
    "Results",
    "RobustvidError",
    "Sample",
    "TrainingPlan",
    "VideoClassifier",
    "VideoDataset",
    "__version__",
    "evaluate",
    "frozen",
    "live",
    "load_attack",
    "load_battery",
    "load_data",
    "load_model",
    "read_frames",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name, or the module ``live``, on first use."""
    if name == "live":
        return import_module("robustvid.live")
    if name not in _HOMES:
        raise AttributeError(f"module 'robustvid' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*_HOMES, "__version__", "live"])
