"""Embeddings of a dataset: to search it for clips that look alike to a model."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from robustvid.contracts import VideoDataset
from robustvid.errors import DataError
from robustvid.evaluation.machine import lent, pick_device
from robustvid.evaluation.probe import lanes_on
from robustvid.evaluation.verdict import as_batch, load_clip
from robustvid.models.classifier import VideoClassifier, weights_digest
from robustvid.models.features import embed

SUFFIXES = (".npz", ".parquet")


class Embeddings(NamedTuple):
    """Embeddings of the clips of a dataset by a model.

    Attributes:
        about: what they are of: ``model``, ``weights``, ``data``, ``split``, ``digest``, ``clip`` and ``classes``.
        ids: of the clips, N.
        labels: int64 ``(N,)``.
        vectors: float32 ``(N, D)``.
    """

    about: dict[str, Any]
    ids: list[str]
    labels: Tensor
    vectors: Tensor


def embed_dataset(
    model: VideoClassifier,
    data: VideoDataset,
    limit: int | None = None,
    *,
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """Embed the evaluation clips of a dataset, in its order.

    Args:
        model: a classifier that computes in torch; it comes back as it was.
        data: labelled videos; its classes need not be the model's.
        limit: only the first so many videos.
        device: a GPU where there is one when None.
        progress: called with clips done and clips in all.

    Raises:
        DecodeError: a video cannot be read.
        ModelError: the model shows no embeddings.
    """
    place = pick_device(device)
    numbers = range(len(data) if limit is None else min(limit, len(data)))
    ids, labels, vectors = [], [], []
    with lent([model], place):
        for begin in range(0, len(numbers), lanes_on(place)):
            clips = [load_clip(data, number, model.card.clip) for number in numbers[begin : begin + lanes_on(place)]]
            vectors.append(embed(model, as_batch(clips, place)).cpu())
            ids += [clip.sample for clip in clips]
            labels += [clip.label for clip in clips]
            if progress:
                progress(len(ids), len(numbers))
    if not ids:
        raise DataError(f"{data.name} has no videos in its split {data.split}")
    return Embeddings(about(model, data), ids, torch.tensor(labels), torch.cat(vectors))


def about(model: VideoClassifier, data: VideoDataset) -> dict[str, Any]:
    """Return what embeddings are of; two that agree in it can be compared."""
    return {
        "model": model.card.name,
        "weights": weights_digest(model),
        "clip": model.card.clip.facts(),
        "data": data.name,
        "split": data.split,
        "digest": getattr(data, "digest", None),
        "classes": list(data.classes),
    }


def write_embeddings(found: Embeddings, path: str | Path) -> None:
    """Write embeddings as ``.npz`` or ``.parquet``, whole or not at all.

    An npz file has the arrays ``ids``, ``labels``, ``embeddings`` and ``about`` (JSON); a parquet file has the columns
    ``id``, ``label``, ``class`` and ``embedding``, and ``about`` among the attributes of the table.

    Raises:
        DataError: the suffix is another.
    """
    path = Path(path)
    check_suffix(path)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    told = json.dumps(found.about)
    if path.suffix == ".npz":
        np.savez(
            temporary,
            ids=np.array(found.ids),
            labels=found.labels.numpy(),
            embeddings=found.vectors.numpy(),
            about=told,
        )
    else:
        classes = found.about["classes"]
        table = pd.DataFrame(
            {
                "id": found.ids,
                "label": found.labels.numpy(),
                "class": [classes[label] for label in found.labels.tolist()],
                "embedding": list(found.vectors.numpy()),
            }
        )
        table.attrs["about"] = told
        table.to_parquet(temporary)
    temporary.replace(path)


def read_embeddings(path: str | Path) -> Embeddings:
    """Read what :func:`write_embeddings` wrote.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    path = Path(path)
    check_suffix(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                ids, labels, vectors = file["ids"].tolist(), file["labels"], file["embeddings"]
                told = str(file["about"])
        else:
            ids, labels, vectors, told = _read_parquet(path)
        found = Embeddings(
            json.loads(told), ids, torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(np.float32(vectors))
        )
        if not (found.vectors.ndim == 2 and len(ids) == len(labels) == len(vectors) > 0):
            raise ValueError(f"{len(ids)} names, {len(labels)} labels, embeddings {tuple(vectors.shape)}")
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} holds no embeddings of clips: {error}") from error
    return found


def nearest(found: Embeddings, queries: Tensor, k: int = 5, *, leave_out: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Return the clips that look most alike, by cosine similarity.

    Args:
        found: the clips to search.
        queries: embeddings ``(Q, D)`` by the same model.
        k: how many for each query; fewer where there are fewer.
        leave_out: for each query the place of a clip that is not to be found, such as itself; none when empty.

    Returns:
        Similarities ``(Q, k)``, largest first, and places of the clips, int64 ``(Q, k)``.

    Raises:
        DataError: the embeddings have another length: another model made them.
    """
    if queries.shape[1] != found.vectors.shape[1]:
        raise DataError(f"queries have {queries.shape[1]} numbers, the clips {found.vectors.shape[1]}")
    similar = F.normalize(queries, dim=1) @ F.normalize(found.vectors, dim=1).T
    if leave_out:
        similar[torch.arange(len(queries)), torch.tensor(leave_out)] = -2
    values, places = similar.topk(min(k, len(found.ids) - bool(leave_out)), dim=1)
    return values, places


def same_class(found: Embeddings, k: int = 5) -> tuple[float, float]:
    """Return how often a clip's nearest other clip, and its ``k`` nearest ones, are of its own class."""
    _, places = nearest(found, found.vectors, k, leave_out=range(len(found.ids)))
    same = (found.labels[places] == found.labels[:, None]).float()
    return float(same[:, 0].mean()), float(same.mean())


def _read_parquet(path: Path) -> tuple[list[Any], Any, Any, str]:
    from pyarrow import ArrowException

    try:
        table = pd.read_parquet(path)
        ids, labels = table["id"].tolist(), table["label"].to_numpy()
        return ids, labels, np.stack(table["embedding"].to_list()), table.attrs["about"]
    except ArrowException as error:  # most are ValueErrors too; that of a name that is no UTF-8 is not
        raise ValueError(str(error)) from error


def check_suffix(path: Path) -> None:
    """Refuse names of files that embeddings are not written as.

    Raises:
        DataError: the suffix is another, or this Python lacks what writes it.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: embeddings are written as .npz or .parquet")
    if path.suffix == ".parquet" and not find_spec("pyarrow"):
        raise DataError(f"{path}: parquet needs pyarrow, which comes with mlflow and is not installed; give .npz")
