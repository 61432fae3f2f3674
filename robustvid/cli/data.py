"""``robustvid data``: look at, make and cache videos."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from robustvid.cli.listing import list_command
from robustvid.cli.options import DATA, JSON, ON_ERROR
from robustvid.cli.progress import counted

MANIFEST = "robustvid-videos.json"


@click.group(
    epilog="""\b
Examples:
  robustvid data check my/videos
  robustvid data make motion10
"""
)
def data() -> None:
    """Check, list, make and cache videos."""


@data.command(
    "list",
    epilog="""\b
Example:
  robustvid data list
""",
)
@click.pass_context
def list_data(ctx: click.Context) -> None:
    """List the datasets that can be named; docs/data.md shows their folders."""
    ctx.invoke(list_command, noun="data")


@data.command(
    epilog="""\b
Examples:
  robustvid data make motion10
  robustvid data make motion10 --root my/folder
"""
)
@click.argument("name", type=click.Choice(["motion10"]))
@click.option("--root", type=click.Path(), help="Folder to make it in.  [default: the user's cache folder]")
def make(name: str, root: str | None) -> None:
    """Make an embedded dataset now rather than on first use."""
    import robustvid as rv

    for split in ("train", "test"):
        found: Any = rv.load_data(name, root=root, split=split)
        click.echo(f"{name}, {split} split: {len(found):,} videos in {found.root}")


@data.command(
    epilog="""\b
Examples:
  robustvid data check my/videos
  robustvid data check /data/ucf101 --data ucf101:fold=2
  robustvid data check /data/kinetics --data kinetics --split train --split val --out checked.json
"""
)
@click.argument("root", type=click.Path())
@click.option("-d", "--data", "name", help="Dataset name.  [default: every file below ROOT]")
@click.option("--split", "splits", multiple=True, help="Split of --data; repeatable.  [default: train and test]")
@click.option("--out", type=click.Path(), help=f"The manifest.  [default: ROOT/{MANIFEST}]")
@click.option("--jobs", type=click.IntRange(min=1), help="Threads that decode.  [default: one a core]")
@JSON
@click.pass_context
def check(
    ctx: click.Context,
    *,
    root: str,
    name: str | None,
    splits: tuple[str, ...],
    out: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Decode every frame of every video below ROOT, and say what is wrong.

    Broken and damaged files are named, and so is what is in two splits at once. What was found, with a SHA-256 of each
    file, is written to a manifest. Exits with 1 where something is broken or in two splits.
    """
    from robustvid.data.checking import check_videos, leaks, list_folder

    listed = list_folder(root) if name is None else _of_splits(name, root, splits or ("train", "test"))
    with counted("videos checked", len(listed)) as progress:
        checked = []
        for one in check_videos(listed, jobs):
            checked.append(one)
            progress(len(checked))
    leaked = leaks(checked)
    manifest = Path(out) if out else Path(root).expanduser() / MANIFEST
    _write_manifest(manifest, checked, leaked)
    broken = [one for one in checked if one.error]
    if as_json:
        told = {"videos": len(checked), "broken": len(broken), "damaged": sum(one.damaged for one in checked)}
        click.echo(json.dumps(told | {"leaks": leaked, "manifest": str(manifest)}))
    else:
        _tell(checked, leaked, manifest)
    ctx.exit(1 if broken or leaked else 0)


@data.command(
    epilog="""\b
Examples:
  robustvid data cache --data ucf101 --root /data/ucf101 --model my/checkpoint --out cache/test
  robustvid attack --model my/checkpoint --data cache --root cache/test
  robustvid data cache --data ucf101 --root /data/ucf101 --split train --model my/checkpoint --whole --out cache/train
"""
)
@DATA
@click.option("--root", type=click.Path(), help="Folder of the dataset; motion10 needs none.")
@click.option("--split", default="test", show_default=True, help="Part of the dataset.")
@click.option("-m", "--model", required=True, help="What the frames are scaled and cropped for.")
@click.option("--whole", is_flag=True, help="Keep every frame, to train from, not the evaluation clip alone.")
@ON_ERROR
@click.option("--jobs", type=click.IntRange(min=1), help="Threads that decode.  [default: one a core]")
@click.option("--out", type=click.Path(), required=True, help="A new folder.")
def cache(
    *, data: str, root: str | None, split: str, model: str, whole: bool, on_error: str, jobs: int | None, out: str
) -> None:
    """Decode videos once, to a memory-mapped array that loads as the dataset "cache"."""
    import robustvid as rv
    from robustvid.data.cache import FRAMES_FILE, write_cache
    from robustvid.data.videos import IndexedVideos
    from robustvid.errors import DataError

    source = rv.load_data(data, root=root, split=split)
    if not isinstance(source, IndexedVideos):
        raise DataError(f"{data} gives clips only; a cache is made of videos whose frames can be read by number")
    clip = rv.load_model(model).card.clip
    with counted("videos cached", len(source)) as progress:
        left_out = write_cache(source, out, clip, whole=whole, skip=on_error == "skip", jobs=jobs, progress=progress)
    for error in left_out:
        click.echo(f"left out: {error}", err=True)
    size = Path(out, FRAMES_FILE).stat().st_size
    click.echo(f"{len(source) - len(left_out):,} videos, {size / 1e6:,.0f} MB, in {out}")


def _of_splits(name: str, root: str, splits: Sequence[str]) -> list[Any]:
    import robustvid as rv
    from robustvid.data.checking import list_dataset
    from robustvid.data.videos import VideoFiles
    from robustvid.errors import DataError

    listed = []
    for split in splits:
        found = rv.load_data(name, root=root, split=split)
        if not isinstance(found, VideoFiles):
            raise DataError(f"{name} is not made of files that can be checked")
        listed += list_dataset(found)
    return listed


def _write_manifest(path: Path, checked: Sequence[Any], leaked: Sequence[str]) -> None:
    import robustvid

    videos = []
    for one in checked:
        entry = asdict(one)
        entry |= entry.pop("video")
        videos.append(entry | {"path": str(one.video.path)})
    text = json.dumps(
        {"schema": 1, "robustvid": robustvid.__version__, "videos": videos, "leaks": list(leaked)}, indent=1
    )
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}; name another file with --out") from None


def _tell(checked: Sequence[Any], leaked: Sequence[str], manifest: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=None, pad_edge=False)
    for column in ("Split", "Videos", "Classes", "Broken", "Damaged", "Frames", "Seconds", "Sizes", "Codecs"):
        table.add_column(column, justify="left" if column in {"Split", "Sizes", "Codecs"} else "right")
    for split in sorted({one.video.split for one in checked}):
        own = [one for one in checked if one.video.split == split]
        good = [one for one in own if not one.error]
        table.add_row(
            *map(
                Text,
                (
                    split or "–",
                    f"{len(own):,}",
                    f"{len({one.video.label for one in own}):,}",
                    f"{len(own) - len(good):,}",
                    f"{sum(one.damaged for one in own):,}",
                    _range([one.frames for one in good]),
                    _range([one.seconds for one in good if one.seconds]),
                    _common(f"{one.width}×{one.height}" for one in good),
                    _common(one.codec for one in good),
                ),
            )
        )
    console.print(table)
    for one in checked:
        if one.error:
            console.print(Text(f"broken   {one.video.path}: {one.error}", style="red"), soft_wrap=True)
        elif one.damaged:
            told = f"damaged  {one.video.path}: {one.decoded} of {one.frames} frames can be decoded"
            console.print(Text(told, style="yellow"), soft_wrap=True)
    for leak in leaked:
        console.print(Text(f"leak     {leak}", style="red"), soft_wrap=True)
    console.print(Text(f"Manifest {manifest}"), soft_wrap=True)


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    ordered = sorted(values)
    least, middle, most = (f"{ordered[place]:g}" for place in (0, len(ordered) // 2, -1))
    return least if least == most else f"{least}–{most}, median {middle}"


def _common(values: Any) -> str:
    counts = Counter(values).most_common()
    return ", ".join(name for name, _ in counts[:2]) + (f" and {len(counts) - 2} more" if len(counts) > 2 else "")
