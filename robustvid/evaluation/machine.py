"""The machine a run is made on: what to note of it, and how to use it without leaving traces."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

import robustvid
from robustvid.contracts import frozen
from robustvid.errors import RunError
from robustvid.evaluation.spec import write_json

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
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
    return {
        "versions": versions(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command) if command else None,
    }


def device_name(device: torch.device) -> str:
    """Return a device and its model in words: ``"cpu (AMD EPYC)"``."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    try:
        named = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:  # no such file: not Linux
        named = None
    return f"{device.type} ({named[1].strip() if named else platform.machine()})"


def pick_device(name: str | torch.device | None) -> torch.device:
    """Return the device of this name; a GPU where there is one when None.

    Raises:
        RunError: there is no such device here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"cannot use the device {name!r}: {str(error).splitlines()[0]}") from None
    return device


def note_environment(path: Path, device: torch.device, command: Sequence[str] | None) -> None:
    """Write ``environment.json``, or, where a run goes on under other versions or on another device, add to it."""
    now = describe_environment(device, command)
    try:
        before = read_environment(path)
        if all(before[key] == now[key] for key in ("versions", "device")):
            return
        before.setdefault("resumed", []).append(now)
    except (RunError, KeyError, AttributeError):  # none yet, or damaged: then this is the first
        before = now
    write_json(path, before)


def read_environment(path: Path) -> dict[str, Any]:
    """Return what was noted of the machine and the command; empty when nothing was.

    Raises:
        RunError: the note is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not isinstance(found, dict):
            raise TypeError(f"it holds a {type(found).__name__}")
        if found and not isinstance(found.get("versions"), dict):
            raise TypeError(f"versions is {found.get('versions')!r}")
        command = found.get("command")
        if command is not None and not (isinstance(command, list) and all(isinstance(word, str) for word in command)):
            raise TypeError(f"command is {command!r}")
        if started := found.get("started"):
            datetime.fromisoformat(started)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}; run the same attack again to have it written anew") from None
    return found


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where the C library is glibc; elsewhere do nothing.

    Else every large tensor is fetched from the system, page by page, and given back after each operation: a quarter of
    the time of a small model on a CPU. For programs of our own: it holds for the whole process, and for good.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function, or no such library: macOS, musl, Windows
        return
    mallopt(_M_MMAP_THRESHOLD, 2**30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def lent(models: Iterable[nn.Module | None], device: torch.device) -> Iterator[None]:
    """Lend models to a device, frozen and in full float32, and bring them back as they were; None is no model."""
    with ExitStack() as stack:
        stack.enter_context(full_float32())
        for model in models:
            if model is not None:
                stack.enter_context(_on_device(model, device))
                stack.enter_context(frozen(model))
        yield


@contextmanager
def full_float32() -> Iterator[None]:
    """Let float32 be float32 on a GPU too, where convolutions are else rounded to TF32, three decimal digits."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


@contextmanager
def _on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    home = next((parameter.device for parameter in model.parameters()), device)
    model.to(device)
    try:
        yield
    finally:
        model.to(home)


@contextmanager
def fastest_threads(work: Callable[[], object], device: torch.device) -> Iterator[None]:
    """Use one CPU thread where that is faster for this work, as it is when other programs keep the cores busy.

    Threads wait for each other after every kernel, so that a busy core slows all of them: ten times was seen. Both
    settings give the same bits.
    """
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1:
        yield
        return
    work()  # the first call pays for allocations and kernel choice
    seconds = {}
    for threads in (before, 1):
        torch.set_num_threads(threads)
        begin = time.perf_counter()
        work()
        seconds[threads] = time.perf_counter() - begin
    torch.set_num_threads(min(seconds, key=lambda threads: seconds[threads]))
    try:
        yield
    finally:
        torch.set_num_threads(before)
