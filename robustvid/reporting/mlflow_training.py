"""MLflow: a training told to a tracking server while it runs, and its model to the registry.

Everything is read from the training's folder and sent with the times noted there, so that what is sent twice is stored
once: after an epoch, at the end, or by ``robustvid sync`` after a server was away.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from robustvid.errors import RunError
from robustvid.evaluation.spec import read_spec, spec_key
from robustvid.models.checkpoint import CARD_FILE, WEIGHTS_FILE
from robustvid.reporting.mlflow import reach, send_metrics, where
from robustvid.reporting.mlflow_schema import SCHEMA, plain_name
from robustvid.training.state import HISTORY_FILE, read_history

_FILES = ("spec.json", "environment.json", HISTORY_FILE)
_MODEL = "model"  # folder of the checkpoint among the run's artifacts


class TrainingLog:
    """Sends a training to MLflow whenever it is called, until it fails; ``robustvid sync`` sends what is missing then.

    Args:
        folder: of the training.
        mode: ``"auto"`` warns once where MLflow cannot be reached, ``"required"`` raises, ``"off"`` does nothing.
    """

    def __init__(self, folder: Path, mode: str = "auto") -> None:
        self.folder, self.mode, self.silent = folder, mode, False

    def __call__(self) -> str | None:
        """Send what there is; return the address at which it can be seen, None where nothing was sent."""
        if self.silent:
            return None
        link = log_training(self.folder, self.mode)
        self.silent = link is None
        return link


def log_training(folder: Path, mode: str = "auto", tracking_uri: str | None = None) -> str | None:
    """Log a training, or bring what is logged of it up to date; see :func:`robustvid.reporting.mlflow.log_run`.

    Raises:
        RunError: the folder holds no training, or nothing could be logged and ``mode`` is ``"required"``.
    """
    training = _read(folder)
    return reach(lambda client, uri: _log(client, uri, training), folder, mode, tracking_uri)


def register(folder: Path, name: str, tracking_uri: str | None = None) -> str:
    """Add the model of a training to MLflow's registry, as a version of ``name``.

    The alias ``latest-robust`` moves to it; ``most-robust`` too where no version has a higher robust accuracy on
    held-out clips. The same weights are registered once.

    Returns:
        The version in words.

    Raises:
        RunError: the folder holds no finished training, or MLflow cannot be reached.
    """
    training = _read(folder)
    if not _complete(training):
        raise RunError(f"{folder} holds no finished training yet")
    told = reach(lambda client, uri: _register(client, uri, training, name), folder, "required", tracking_uri)
    return told or ""


class _Training(NamedTuple):
    folder: Path
    spec: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def key(self) -> str:
        return spec_key(self.spec)


def _read(folder: Path) -> _Training:
    return _Training(folder, read_spec(folder, kind="training"), read_history(folder))


def _log(client: Any, uri: str, training: _Training) -> str:
    from mlflow.entities import Metric, Param, RunTag

    experiment, run = _find_or_start(client, training)
    metrics = [
        Metric(key, float(value), round(1000 * record["time"]), record["step"])
        for record in training.history
        for key, value in record.items()
        if "/" in key and value is not None
    ]
    send_metrics(client, run, metrics)
    params = [Param(key, value) for key, value in _params(training).items()]
    client.log_batch(run, params=params, tags=[RunTag(key, value) for key, value in _tags(training).items()])
    for name in _FILES:
        if (training.folder / name).is_file():
            client.log_artifact(run, training.folder / name)
    if _complete(training):
        for name in (WEIGHTS_FILE, CARD_FILE):
            client.log_artifact(run, training.folder / name, _MODEL)
    if training.history:
        status = "FINISHED" if _complete(training) else "RUNNING"
        client.update_run(run, status=status)
    return where(uri, experiment, view=None)


def _find_or_start(client: Any, training: _Training) -> tuple[str, str]:
    name = f"robustvid-train-{plain_name(training.spec['data']['name'])}"[:250]
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name, tags={"robustvid.schema": SCHEMA})
    for run in client.search_runs([experiment], f"tags.`robustvid.run_id` = '{training.key}'", max_results=1):
        return experiment, run.info.run_id
    made = client.create_run(experiment, tags=_tags(training), run_name=_name(training))
    return experiment, made.info.run_id


def _name(training: _Training) -> str:
    seed = training.spec["plan"]["seed"]
    return f"{training.spec['model']['name']}{f'·s{seed}' if seed else ''}"


def _params(training: _Training) -> dict[str, str]:
    spec = training.spec
    facts = {
        "model": spec["model"]["name"],
        "start": spec["model"]["start"],
        "arch": spec["model"]["arch"],
        "data": spec["data"]["name"],
        "split": spec["data"]["split"],
    }
    plan = {key: "; ".join(value) if isinstance(value, list) else value for key, value in spec["plan"].items()}
    return {key: str(value)[:6000] for key, value in (facts | plan).items()}


def _tags(training: _Training) -> dict[str, str]:
    raised = [f"epoch {record['epoch']}: {alarm}" for record in training.history for alarm in record["alarms"]]
    names = sorted({alarm.partition(": ")[0] for record in training.history for alarm in record["alarms"]})
    return {
        "robustvid.run_id": training.key,
        "robustvid.kind": "train-adv",
        "robustvid.spec_sha256": hashlib.sha256(json.dumps(training.spec, sort_keys=True).encode()).hexdigest(),
        "robustvid.status": ("flagged" if raised else "complete") if _complete(training) else "partial",
        "robustvid.alarms": ", ".join(names),
        "mlflow.note.content": "\n\n".join(f"**Alarm** {alarm}" for alarm in raised)[:5000],
        "mlflow.source.name": "robustvid",
    }


def _complete(training: _Training) -> bool:
    return len(training.history) >= int(training.spec["plan"]["epochs"])


def _register(client: Any, uri: str, training: _Training, name: str) -> str:
    from mlflow.exceptions import MlflowException

    _log(client, uri, training)
    _, run = _find_or_start(client, training)
    card = json.loads((training.folder / CARD_FILE).read_text(encoding="utf-8"))
    robust = card["lineage"][-1]["selected"].get("val/robust_acc", 0.0)
    tags = {"robustvid.weights_sha256": card["weights_digest"], "robustvid.val_robust_acc": str(robust)}
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    versions = client.search_model_versions(f"name = '{name}'")
    known = next((v for v in versions if v.tags.get("robustvid.weights_sha256") == card["weights_digest"]), None)
    source = f"{client.get_run(run).info.artifact_uri}/{_MODEL}"
    version = known or client.create_model_version(name, source, run, tags=tags)
    client.set_registered_model_alias(name, "latest-robust", version.version)
    try:
        champion = client.get_model_version_by_alias(name, "most-robust")
    except MlflowException:
        champion = None
    if champion is None or robust >= float(champion.tags.get("robustvid.val_robust_acc", 0.0)):
        client.set_registered_model_alias(name, "most-robust", version.version)
    return f"{name} version {version.version}"
