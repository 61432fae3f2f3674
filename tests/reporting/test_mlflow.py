"""MLflow: what is logged is what was measured, once, and a dead server costs seconds."""

import io
import json
import logging
import os
import time
import zlib
from base64 import b64decode
from contextlib import redirect_stderr, redirect_stdout

import pytest

from robustvid.errors import RobustvidError, RunError
from robustvid.reporting import mlflow_schema
from robustvid.reporting.figures import write_figures
from robustvid.reporting.mlflow import log_run
from robustvid.reporting.mlflow_view import TAG, view_tag
from robustvid.reporting.page import write_report
from robustvid.reporting.panels import panels

DEAD = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture(scope="module")
def made(results, tmp_path_factory):
    """Make one database for all tests, which takes seconds; return its address and what was printed meanwhile."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    printed = io.StringIO()
    write_figures(results, results.folder / "figures")
    write_report(results)
    with redirect_stdout(printed), redirect_stderr(printed):
        log_run(results, "required", uri)
    return uri, printed.getvalue()


@pytest.fixture
def store(made):
    """Return the address of the database."""
    return made[0]


@pytest.fixture
def client(store):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store)


def runs(client, results):
    experiment = client.get_experiment_by_name(mlflow_schema.experiment_name(results))
    return client.search_runs([experiment.experiment_id], f"tags.`robustvid.run_id` = '{results.key}'")


def history(client, run, key):
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key))


def test_metrics_are_the_curves(results, store, client):
    (run,) = runs(client, results)
    for threat in results.threats:
        panel = next(panel for panel in panels(results) if panel.threat == threat)
        radii = list(panel.lines[0].points.x)
        steps = [round(1000 * radius) for radius in radii]
        assert history(client, run, f"x_eps/{threat}") == list(zip(steps, radii, strict=True))
        for attack, key in (("worst", "worst"), ("fgsm", "fgsm"), ("pgd:steps=3", "pgd:steps-3")):
            shares = list(results.curve(threat, attack).acc)
            assert history(client, run, f"robust_acc/{threat}/{key}") == list(zip(steps, shares, strict=True))
    assert run.data.metrics["clean_acc"] == results.clean["acc"]
    assert run.data.metrics["robust_acc_at_linf-frame_4-255"] == results.curve("linf-frame").acc.iloc[-1]


def test_params_tags_and_files(results, store, client):
    (run,) = runs(client, results)
    assert run.info.run_name == run.data.params["model"] == "toy"
    assert run.data.params["eps.l2-clip"] == "l2 clip 0.05, l2 clip 0.2"
    assert run.data.params["steps"] == "pgd:steps=3 3"
    assert run.data.params["precision"] == "fast"
    assert run.data.tags["robustvid.status"] == "complete"
    assert run.info.status == "FINISHED"
    assert run.inputs.dataset_inputs[0].dataset.name == "noise"
    paths = {file.path for folder in ("", "figures", "tables", "report") for file in files(client, run, folder)}
    wanted = {"spec.json", "environment.json", "summary.json", "tables/curves.json", "report/report.html"}
    assert wanted | {"figures/linf-frame.svg"} <= paths


def files(client, run, folder):
    return client.list_artifacts(run.info.run_id, folder)


def test_logging_twice_changes_nothing(results, store, client):
    (before,) = runs(client, results)
    points = {key: history(client, before, key) for key in before.data.metrics}
    log_run(results, "required", store)
    (after,) = runs(client, results)
    assert after.to_dictionary() == before.to_dictionary()
    assert {key: history(client, after, key) for key in after.data.metrics} == points
    assert len(client.search_logged_models([after.info.experiment_id])) == 1


def test_a_run_that_went_on_replaces_what_was_logged_of_its_beginning(results, partial, store, client):
    log_run(partial, "required", store)
    (run,) = runs(client, partial)
    assert run.data.tags["robustvid.status"] == "partial"
    assert run.info.status == "KILLED"
    assert run.data.metrics["n_judged"] == partial.n
    log_run(results, "required", store)
    (run,) = runs(client, results)
    assert run.data.tags["robustvid.status"] == "complete"
    worst = results.curve("linf-frame").acc
    assert [value for _, value in history(client, run, "robust_acc/linf-frame/worst")] == list(worst)


def test_models_of_one_experiment_have_different_colours(results, other, store, client):
    for run in (results, other):
        log_run(run, "required", store)
    (one,), (two,) = runs(client, results), runs(client, other)
    assert one.info.experiment_id == two.info.experiment_id
    assert one.data.tags["mlflow.runColor"] != two.data.tags["mlflow.runColor"]
    assert two.data.tags["robustvid.status"] == "flagged"


def test_a_surface_is_one_curve_for_each_number_of_frames(surface, store, client):
    log_run(surface, "required", store)
    (run,) = runs(client, surface)
    values = history(client, run, "robust_acc/linf-frame-k/worst-k1")
    assert [step for step, _ in values] == [0, 500, 1000, 2000, 4000]
    assert values[0][1] == surface.clean["acc"]
    assert run.data.metrics["robust_acc_at_linf-frame-k_4-255_k2"] == values_at(surface, "4/255", 2)


def values_at(results, eps, frames):
    curve = results.curve("linf-frame-k")
    return curve[(curve.eps_frame == eps) & (curve.frames == frames)].acc.item()


def test_the_saved_view_shows_every_curve_against_the_exact_radius(results, store, client):
    experiment = client.get_experiment_by_name(mlflow_schema.experiment_name(results))
    envelope = json.loads(experiment.tags[TAG])
    state = json.loads(zlib.decompress(b64decode(envelope["state"].removeprefix("deflate;"))))
    first = state["compareRunCharts"][0]
    assert (first["metricKey"], first["selectedXAxisMetricKey"]) == ("robust_acc/linf-frame/worst", "x_eps/linf-frame")
    assert len(state["compareRunCharts"]) == 6


def test_a_view_that_the_page_would_refuse_is_not_written():
    assert view_tag(f"robust_acc/{number}-{hash(str(number))}/worst" for number in range(3000)) is None


def test_a_view_that_cannot_be_saved_is_a_warning(results, store, monkeypatch, caplog):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def refuse(*_):
        raise MlflowException("not here")

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
    assert log_run(results, "required", store)
    assert "the view was not saved" in caplog.text


def test_a_local_database_comes_with_the_command_that_serves_it(results, store):
    command, link = log_run(results, "required", store).splitlines()
    assert command == f"mlflow server --backend-store-uri {store} --port 5000"
    assert link.endswith("compareRunsMode=CHART&viewStateShareKey=robustvid")


def test_the_default_is_a_database_in_this_folder(results, monkeypatch, tmp_path, store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    log_run(results, "required")
    assert list(tmp_path.glob("*.db")) == []


def test_the_terminal_stays_quiet_while_a_database_is_made(made):
    assert made[1] == ""


def test_a_dead_server_costs_seconds_and_one_line(results, caplog, capfd):
    before = dict(os.environ)
    begin = time.perf_counter()
    with caplog.at_level(logging.WARNING):
        assert log_run(results, "auto", DEAD) is None
    assert time.perf_counter() - begin < 10
    (line,) = caplog.messages
    assert f"robustvid sync {results.folder}" in line
    assert capfd.readouterr().out == ""
    assert dict(os.environ) == before


def test_a_dead_server_is_an_error_where_mlflow_is_required(results):
    with pytest.raises(RunError, match="MLflow at"):
        log_run(results, "required", DEAD)


def test_passwords_are_not_shown(results, caplog):
    log_run(results, "auto", "http://me:secret@127.0.0.1:9")
    assert "secret" not in caplog.text


def test_off_does_nothing_and_other_words_are_refused(results):
    assert log_run(results, "off", DEAD) is None
    with pytest.raises(RobustvidError, match="required"):
        log_run(results, "require")


def test_a_run_without_measurements_is_not_logged(unmeasured, store):
    with pytest.raises(RunError, match="no measurement"):
        log_run(unmeasured, "auto", store)
