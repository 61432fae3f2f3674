"""MLflow: a run folder told to a tracking server, as often as one likes.

Metrics carry fixed times, so that what is sent twice is stored once; an MLflow run is found again by the key of the
spec. The run folder stays the only truth: a server that does not answer costs seconds and no result.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pandas as pd

from robustvid.errors import RobustvidError, RunError
from robustvid.evaluation.results import WORST, Results
from robustvid.registry import did_you_mean
from robustvid.reporting import mlflow_schema as schema
from robustvid.reporting import mlflow_view

MODES = ("auto", "off", "required")
_LOCAL = "sqlite:///mlflow.db"
_FILES = {"spec.json": None, "environment.json": None, "summary.json": None, "report.html": "report"}
_BATCH = 1000  # metrics that MLflow takes at once
_QUIET = ("mlflow", "alembic", "urllib3")
_PROBE = {"MAX_RETRIES": "1", "BACKOFF_FACTOR": "1", "BACKOFF_JITTER": "0", "TIMEOUT": "5"}
_SEND = {"MAX_RETRIES": "2", "BACKOFF_FACTOR": "1", "BACKOFF_JITTER": "0", "TIMEOUT": "60"}
SILENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
log = logging.getLogger("robustvid")


class _Target(NamedTuple):
    """Where a run is logged: the MLflow client, the run and when it began, in milliseconds."""

    client: Any
    experiment: str
    run: str
    began: int


def log_run(results: Results, mode: str = "auto", tracking_uri: str | None = None) -> str | None:
    """Log a run to MLflow, or bring what is logged of it up to date.

    Report and figures are sent as they lie in the run folder: write them first.

    Args:
        results: the run; one that is not complete is logged with the tag ``robustvid.status = partial``.
        mode: ``"auto"`` warns where MLflow cannot be reached, ``"required"`` raises, ``"off"`` does nothing.
        tracking_uri: the tracking server or database; ``MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db`` in the
            current folder, when None.

    Returns:
        The address at which the curves can be seen, for a local database after the command that serves it; None where
        nothing was logged.

    Raises:
        RunError: nothing could be logged, and ``mode`` is ``"required"``; or the run holds no measurement yet.
        RobustvidError: there is no such mode.
    """
    return reach(lambda client, uri: _log(client, results, uri), results.folder, mode, tracking_uri)


def reach(
    work: Callable[[Any, str], str], folder: Path, mode: str = "auto", tracking_uri: str | None = None
) -> str | None:
    """Return ``work(client, uri)`` with a client of MLflow; what fails costs seconds, and no run.

    Args:
        work: what to send; returns a line for the user.
        folder: of the run, for messages.
        mode: see :func:`log_run`.
        tracking_uri: likewise.

    Raises:
        RunError: MLflow failed, and ``mode`` is ``"required"``.
        RobustvidError: there is no such mode.
    """
    if mode not in MODES:
        raise RobustvidError(f"no mode {mode!r} of MLflow.{did_you_mean(mode, MODES)} There are: {', '.join(MODES)}.")
    if mode == "off":
        return None
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _LOCAL
    with _environment(SILENT), _quiet():
        try:
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=uri)
            with _environment(_http(_PROBE)):
                client.search_experiments(max_results=1)
            with _environment(_http(_SEND)):
                return work(client, uri)
        except RobustvidError:
            raise
        except Exception as error:  # noqa: BLE001  a server may fail in any way; the run is safe, and all is said
            reason = f"{_shown(uri)} failed: {str(error).replace(uri, _shown(uri)).splitlines()[0][:200]}"
    if mode == "required":
        raise RunError(f"MLflow at {reason}; the run itself is safe in {folder}")
    log.warning("MLflow at %s; later: robustvid sync %s", reason, shlex.quote(str(folder)))
    return None


def _log(client: Any, results: Results, uri: str) -> str:
    target = _find_or_start(client, results)
    _send_numbers(target, results)
    _send_files(target, results)
    _finish(target, results)
    _save_view(target)
    return where(uri, target.experiment, mlflow_view.VIEW)


def _find_or_start(client: Any, results: Results) -> _Target:
    """Return the run that holds these numbers; one that holds others of the same spec gives way to a new one."""
    name = schema.experiment_name(results)
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name, tags=schema.experiment_tags())
    tags, began = schema.run_tags(results), _began(results)
    for run in client.search_runs([experiment], f"tags.`robustvid.run_id` = '{results.key}'"):
        if run.data.tags.get("robustvid.numbers") == tags["robustvid.numbers"]:
            return _Target(client, experiment, run.info.run_id, run.info.start_time)
        client.delete_run(run.info.run_id)
    colour = schema.free_colour(results.spec["model"]["name"], _colours(client, experiment))
    run = client.create_run(experiment, began, tags | {"mlflow.runColor": colour}, schema.run_name(results))
    return _Target(client, experiment, run.info.run_id, began)


def _colours(client: Any, experiment: str) -> dict[str, str]:
    found = [run.data for run in client.search_runs([experiment], max_results=1000)]
    return {data.params.get("model", ""): data.tags.get("mlflow.runColor", "") for data in found}


def _send_numbers(target: _Target, results: Results) -> None:
    from mlflow.entities import Metric, Param, RunTag

    client, (name, digest) = target.client, _dataset_name(results)
    model = _model(target, results)
    _send_inputs(target, results, model)
    points = [
        Metric(point.key, point.value, target.began, point.step, model, name, digest, target.run)
        for point in schema.metrics(results)
    ]
    params = [Param(key, value) for key, value in schema.params(results).items()]
    tags = [RunTag(key, value) for key, value in schema.run_tags(results).items()]
    client.log_batch(target.run, params=params, tags=tags)
    send_metrics(client, target.run, points)


def send_metrics(client: Any, run: str, metrics: Sequence[Any]) -> None:
    """Log metrics, as many at once as MLflow takes."""
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run, metrics=metrics[start : start + _BATCH])


def _model(target: _Target, results: Results) -> str:
    """Return the id of the logged model of this experiment: a page of its own, without the weights."""
    card = results.spec["model"]
    found = target.client.search_logged_models(
        [target.experiment], f"tags.`robustvid.weights_sha256` = '{card['weights']}'", max_results=1
    )
    if found:
        return str(found[0].model_id)
    made = target.client.create_logged_model(
        target.experiment,
        name=schema.plain_name(card["name"]),
        source_run_id=target.run,
        tags={"robustvid.weights_sha256": card["weights"], "mlflow.model.isExternal": "true"},
        params={"arch": card["arch"], "classes": str(len(card["classes"]))},
        model_type="video-classifier",
    )
    target.client.finalize_logged_model(made.model_id, "READY")
    return str(made.model_id)


def _dataset_name(results: Results) -> tuple[str, str]:
    data = results.spec["data"]
    return data["name"][:500], f"{data['digest'] or ''}{data['order']}"[:16] + f"-{data['clips']}"


def _send_inputs(target: _Target, results: Results, model: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

    data, (name, digest) = results.spec["data"], _dataset_name(results)
    profile = json.dumps({"num_rows": data["clips"], "num_videos": data["videos"]})
    source = json.dumps({"name": data["name"], "split": data["split"], "digest": data["digest"]})
    dataset = Dataset(name, digest, source_type="robustvid", source=source, profile=profile)
    use = DatasetInput(dataset, [InputTag("mlflow.data.context", "attack-eval")])
    target.client.log_inputs(target.run, [use], [LoggedModelInput(model)])


def _send_files(target: _Target, results: Results) -> None:
    folder = results.folder
    for name, where in _FILES.items():
        if (folder / name).is_file():
            target.client.log_artifact(target.run, folder / name, where)
    if (folder / "figures").is_dir():
        target.client.log_artifacts(target.run, folder / "figures", "figures")
    with TemporaryDirectory() as scratch:
        _write_table(results, Path(scratch))
        target.client.log_artifacts(target.run, scratch, "tables")


def _write_table(results: Results, folder: Path) -> None:
    """Write all curves in the form that MLflow shows as a table."""
    curves = pd.concat([results.curve(attack=attack) for attack in [*results.attacks, WORST]])
    (folder / "curves.json").write_text(curves.to_json(orient="split", index=False), encoding="utf-8")


def _finish(target: _Target, results: Results) -> None:
    tables = json.dumps([{"path": "tables/curves.json", "type": "table"}])
    target.client.set_tag(target.run, "mlflow.loggedArtifacts", tables)
    status = "FINISHED" if results.complete else "KILLED"
    target.client.set_terminated(target.run, status, target.began + round(1000 * results.cost["seconds"]))


def _save_view(target: _Target) -> None:
    """Save the view that the link opens; without it the page shows charts of its own."""
    runs = target.client.search_runs([target.experiment], max_results=1000)
    view = mlflow_view.view_tag(key for run in runs for key in run.data.metrics)
    if view is None:
        log.warning("MLflow: too many curves for a saved view; the page opens with its own charts")
        return
    try:
        target.client.set_experiment_tag(target.experiment, mlflow_view.TAG, view)
    except Exception as error:  # noqa: BLE001  the view is a comfort; without it the page opens with its own charts
        log.warning("MLflow: the view was not saved, the page opens with its own charts: %s", error)


def _began(results: Results) -> int:
    """Return when the run was started, in milliseconds."""
    if started := results.environment.get("started"):
        return round(1000 * datetime.fromisoformat(started).timestamp())
    return round(1000 * (results.folder / "spec.json").stat().st_mtime)


def where(uri: str, experiment: str, view: str | None) -> str:
    """Return the address of an experiment's charts, for a local database after the command that serves it."""
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    page += f"&viewStateShareKey={view}" if view else ""
    if urlsplit(uri).scheme in {"http", "https"}:
        return f"{_shown(uri).rstrip('/')}/{page}"
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    command = f"mlflow server --backend-store-uri {shlex.quote(_shown(uri))} --port 5000"
    return f"{command}\nhttp://127.0.0.1:5000/{page}"


def local_store(uri: str | None = None) -> str:
    """Return the database that a server of one's own would show.

    Raises:
        RobustvidError: it is a server already, or there is no such file.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or _LOCAL
    if urlsplit(uri).scheme in {"http", "https"}:
        raise RobustvidError(f"{_shown(uri)} is a server already: open it in a browser, or give --store sqlite:///FILE")
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.is_file():
        raise RobustvidError(f"there is no {path.absolute()}: robustvid attack makes it where it runs, or give --store")
    return uri


def experiments(uri: str, server: str) -> dict[str, str]:
    """Return the address of every experiment of robustvid in a database, as a server at ``server`` will show it."""
    with _environment(SILENT), _quiet():
        from mlflow import MlflowClient

        found = MlflowClient(tracking_uri=uri).search_experiments(filter_string="name LIKE 'robustvid-%'")
    views = {one.experiment_id: mlflow_view.VIEW if mlflow_view.TAG in one.tags else None for one in found}
    return {one.name: where(server, one.experiment_id, views[one.experiment_id]) for one in found}


def _shown(uri: str) -> str:
    """Return an address without the password in it."""
    return uri.replace(f"{urlsplit(uri).netloc.rpartition('@')[0]}@", "", 1) if "@" in urlsplit(uri).netloc else uri


def _http(settings: dict[str, str]) -> dict[str, str]:
    """Return environment variables of MLflow's HTTP client, except those that the user has set."""
    names = {f"MLFLOW_HTTP_REQUEST_{name}": value for name, value in settings.items()}
    return {name: value for name, value in names.items() if name not in os.environ}


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log lines and warnings of MLflow and what it stands on off the user's terminal."""
    loggers = [logging.getLogger(name) for name in _QUIET]
    with suppress(ImportError):  # whoever needs it next says that it is missing
        import mlflow  # noqa: F401  sets its log level on import
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
