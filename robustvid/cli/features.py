"""``robustvid features``: embeddings of clips, and which clips look alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from robustvid.cli.options import DATA, DEVICE, JSON, ROOT, all_of
from robustvid.cli.progress import counted

_OPTIONS = (
    click.option("-m", "--model", default="conv3d", show_default=True, help="Zoo name, folder, or module:function."),
    DATA,
    ROOT,
    click.option("--split", default="test", show_default=True, help="Part of the dataset."),
    click.option("-n", "--clips", type=click.IntRange(min=1), help="Only the first so many.  [default: all]"),
    click.option(
        "--out",
        type=click.Path(dir_okay=False),
        default="features.npz",
        show_default=True,
        help=".npz or .parquet; what is there of the same model and clips is not computed again.",
    ),
    click.option(
        "--query", "queries", multiple=True, type=click.Path(), help="A video to find the like of; repeatable."
    ),
    click.option("-k", type=click.IntRange(min=1), default=5, show_default=True, help="How many to find."),
    DEVICE,
    JSON,
)


@click.command(
    epilog="""\b
Examples:
  robustvid features --model conv3d --out features.parquet
  robustvid features --data folder --root my/videos --query this.mp4 -k 10
"""
)
@all_of(_OPTIONS)
def features(  # noqa: PLR0917  click hands all over by name
    model: str,
    data: str,
    root: str | None,
    split: str,
    clips: int | None,
    out: str,
    queries: tuple[str, ...],
    k: int,
    device: str | None,
    *,
    as_json: bool,
) -> None:
    """Write the embedding of every clip, what enters the model's last layer, and find clips that look alike.

    Nearest is by cosine similarity. It also says how often the nearest other clips are of a clip's own class.
    """
    import robustvid as rv
    from robustvid.evaluation.machine import keep_freed_memory
    from robustvid.evaluation.retrieval import nearest, same_class

    keep_freed_memory()
    classifier = rv.load_model(model)
    videos = rv.load_data(data, root=root, split=split)
    found = _embeddings(classifier, videos, clips, Path(out), device)
    first, several = same_class(found, k) if len(found.ids) > 1 else (0.0, 0.0)
    answers: list[dict[str, Any]] = []
    for query in queries:
        values, places = nearest(found, _embed_file(classifier, query, device), k)
        answers.append({"query": query, "nearest": _named(found, values[0].tolist(), places[0].tolist())})
    if as_json:
        facts = {"file": out, "clips": len(found.ids), "dimensions": found.vectors.shape[1], "queries": answers}
        click.echo(json.dumps(facts | {"same_class": {"nearest": first, f"{k}_nearest": several}}, allow_nan=False))
        return
    click.echo(f"{len(found.ids):,} clips of {data}, {found.vectors.shape[1]} numbers each, in {out}")
    if len(found.ids) > 1:
        click.echo(f"of its own class are a clip's nearest other {first:.0%}, its {k} nearest others {several:.0%}")
    for answer in answers:
        click.echo(f"\n{answer['query']}")
        for one in answer["nearest"]:
            click.echo(f"  {one['similarity']:.3f}  {one['class']:<16} {one['id']}")


def _embeddings(model: Any, data: Any, limit: int | None, out: Path, device: str | None) -> Any:
    """Return the embeddings in the file, made first where they are not there yet."""
    from robustvid.errors import DataError
    from robustvid.evaluation.retrieval import about, check_suffix, embed_dataset, read_embeddings, write_embeddings

    check_suffix(out)
    if out.exists():
        found = read_embeddings(out)
        if found.about != about(model, data) or len(found.ids) != min(limit or len(data), len(data)):
            raise DataError(f"{out} holds embeddings of another model or of other clips; name another file by --out")
        return found
    out.parent.mkdir(parents=True, exist_ok=True)
    with counted("clips") as progress:
        found = embed_dataset(model, data, limit, device=device, progress=progress)
    write_embeddings(found, out)
    return found


def _embed_file(model: Any, path: str, device: str | None) -> Any:
    from robustvid.data.videos import VideoFile, VideoFiles
    from robustvid.evaluation.retrieval import embed_dataset

    file = Path(path)
    one = VideoFiles("query", "test", ("unknown",), file.parent, [VideoFile(file.name, 0)])
    return embed_dataset(model, one, device=device).vectors


def _named(found: Any, values: list[float], places: list[int]) -> list[dict[str, Any]]:
    classes = found.about["classes"]
    return [
        {"id": found.ids[place], "class": classes[int(found.labels[place])], "similarity": round(value, 4)}
        for value, place in zip(values, places, strict=True)
    ]
