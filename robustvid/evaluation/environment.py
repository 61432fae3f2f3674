"""Where a run was made: versions, device and command, for people who compare numbers."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import torch

import robustvid

_PACKAGES = ("torch", "torchvision", "numpy", "av", "mlflow", "torchattacks", "adversarial-robustness-toolbox")


def versions() -> dict[str, str | None]:
    """Return the versions of robustvid and of what it stands on; None for what is not installed."""
    found: dict[str, str | None] = {"robustvid": robustvid.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def describe_environment(device: torch.device, command: Sequence[str] | None) -> dict[str, Any]:
    """Return what is noted of the machine in ``environment.json``; none of it is part of the spec."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "versions": versions(),
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command) if command else None,
    }
