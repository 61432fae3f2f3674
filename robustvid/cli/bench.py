"""``robustvid bench``: how fast attacks are on this machine."""

from __future__ import annotations

import json
from typing import Any

import click

from robustvid.cli.options import DATA, DEVICE, JSON, ROOT, all_of

_OPTIONS = (
    click.option("-m", "--model", default="conv3d", show_default=True, help="Zoo name, folder, or module:function."),
    DATA,
    ROOT,
    DEVICE,
    JSON,
)


@click.command(
    epilog="""\b
Examples:
  robustvid bench
  robustvid bench --model my_package.mine:build --data folder --root my/videos
"""
)
@all_of(_OPTIONS)
def bench(model: str, data: str, root: str | None, device: str | None, *, as_json: bool) -> None:
    """Time what a sweep is made of: reading clips, forwards and backwards, and the loop of an attack.

    `robustvid attack --dry-run` says how long a whole run takes.
    """
    import robustvid as rv
    from robustvid.evaluation.bench import bench as measure
    from robustvid.evaluation.machine import keep_freed_memory

    keep_freed_memory()
    found = measure(rv.load_model(model), rv.load_data(data, root=root, split="test"), device)
    click.echo(json.dumps(found) if as_json else _words(found))


def _words(found: dict[str, Any]) -> str:
    given, fast, path = found["given"], found["fast"], found["path"]
    why = f" ({path['why']})" if "why" in path else ""
    off = f", logits differ by {path['difference']:.0e} of their spread" if "difference" in path else ""
    times = "\n".join(
        f"{label:<22} {fast[name]:8.2f} ms a clip   as given {given[name]:.2f}"
        for name, label in (("forward_ms", "forward"), ("pass_ms", "forward and backward"))
    )
    lower = f"{found['bf16']['pass_ms']:8.2f} ms a clip, forward and backward"
    if reason := found["bf16_path"].get("not_bf16"):
        lower = f"changes nothing: {reason}"
    return (
        f"{found['model']} on {found['device']}, {found['clips']} clips at once\n"
        f"{'reading':<22} {found['read_ms']:8.2f} ms a clip\n"
        f"{times}\n"
        f"{'attacks are given':<22} {path['path']}{why}{off}\n"
        f"{'--precision bf16':<22} {lower}\n"
        f"{'PGD-10':<22} {found['loop']:8.2f} times its bare forwards and backwards"
    )
