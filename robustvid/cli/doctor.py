"""``robustvid doctor``: is everything here that a run needs?"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import click


@click.command(
    epilog="""\b
Example:
  robustvid doctor
"""
)
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check versions, devices, codecs, cache and MLflow, and attack for a few seconds.

    Exits with 1 when something that a run needs is broken.
    """
    broken = 0
    for name, check in _CHECKS.items():
        try:
            good, answer = True, check()
        except Exception as error:  # noqa: BLE001  a diagnosis must survive whatever it finds, and say it
            good, answer = False, f"{type(error).__name__}: {error}"
        broken += not good
        click.echo(f"{'ok    ' if good else 'BROKEN'}  {name:<10} {answer}")
    ctx.exit(1 if broken else 0)


def _versions() -> str:
    from robustvid.evaluation.machine import versions

    return ", ".join(f"{name} {version or 'missing'}" for name, version in versions().items())


def _devices() -> str:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"CPU with {torch.get_num_threads()} threads; GPUs: {', '.join(gpus) or 'none'}"


def _codecs() -> str:
    import torch

    from robustvid.data.decode import read_frames, write_video

    frames = torch.arange(4, dtype=torch.uint8).mul(50)[:, None, None, None].expand(4, 32, 32, 3).contiguous()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames, fps=12)
        worst = int((read_frames(path, range(4)).int() - frames.int()).abs().max())
    return f"H.264 written and read back, largest pixel difference {worst}"


def _cache() -> str:
    from robustvid.data.motion10 import home_folder

    folder = home_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder):
        free = shutil.disk_usage(folder).free / 1e9
    return f"{folder}, {free:.0f} GB free"


def _mlflow() -> str:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    version = metadata.version("mlflow")
    if not uri.startswith(("http://", "https://")):
        return f"{version}, logs to {uri}"
    with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5) as answer:  # noqa: S310  http(s) alone
        return f"{version}, {uri} answers {answer.status}"


def _smoke() -> str:
    import torch

    import robustvid as rv

    model = rv.load_model("conv3d")
    spec = model.card.clip
    clips = torch.rand(4, 3, spec.frames, *spec.size, generator=torch.Generator().manual_seed(0))
    budget = rv.Budget("linf", "8/255")
    begin = time.perf_counter()
    with torch.no_grad():
        labels = model.eval()(clips).argmax(1)
    adversarial = rv.load_attack("pgd:steps=5")(model, clips, labels, budget, torch.arange(4))
    size = float(budget.size(adversarial - clips).max())
    with torch.no_grad():
        broken = int((model(adversarial).argmax(1) != labels).sum())
    seconds = time.perf_counter() - begin
    return f"PGD-5 on conv3d broke {broken} of 4 clips within {size:.2f} of its budget, {seconds:.1f} s"


_CHECKS: dict[str, Callable[[], str]] = {
    "versions": _versions,
    "devices": _devices,
    "codecs": _codecs,
    "cache": _cache,
    "mlflow": _mlflow,
    "attack": _smoke,
}
