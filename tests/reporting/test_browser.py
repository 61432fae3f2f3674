"""The page and the MLflow link in a real browser."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest
from browser import CHROMIUM, Browser
from mlflow import MlflowClient

from robustvid.reporting import mlflow
from robustvid.reporting.mlflow import log_run
from robustvid.reporting.page import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def tab(request, results):
    with Browser(width=request.param) as browser:
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=request.param, height=900, deviceScaleFactor=1, mobile=False
        )
        browser.open(write_report(results).absolute().as_uri())
        browser.wait_for("document.querySelectorAll('.clip').length > 0")
        browser.wait_for("[...document.querySelectorAll('.player')].every(player => !player.hidden)")
        yield browser
        assert browser.problems == []


def test_clips_play_pause_and_seek(tab):
    where = "document.querySelector('.where').textContent"
    assert tab.run(where) == "1/4"
    tab.run("document.querySelector('.play').click()")
    tab.wait_for(f"{where} === '3/4'")
    tab.run("document.querySelector('.play').click()")
    stopped = tab.run(where)
    time.sleep(0.4)
    assert tab.run(where) == stopped
    tab.run("const s = document.querySelector('.frame'); s.value = 3; s.dispatchEvent(new Event('input')); 1")
    assert tab.run(where) == "4/4"


def test_the_difference_on_the_canvas_is_the_amplified_difference(tab):
    code = """(() => {
        const [clean, adversarial, difference] = [...document.querySelectorAll('.clip canvas')].slice(0, 3)
            .map(view => view.getContext('2d').getImageData(0, 0, view.width, view.height).data);
        const factor = 2 ** Number(document.querySelector('.amplify').value);
        return clean.every((value, at) => at % 4 === 3 ||
            difference[at] === Math.min(255, Math.max(0, 128 + factor * (adversarial[at] - value))));
    })()"""
    assert tab.run(code)
    assert tab.run("[...document.querySelectorAll('.note')].every(note => note.hidden)")


def test_the_page_never_scrolls_sideways(tab):
    assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_everything_can_be_reached_by_keyboard(tab):
    controls = "button, input, [tabindex], a[href]"
    assert tab.run(f"[...document.querySelectorAll('{controls}')].every(element => element.tabIndex >= 0)")
    tab.run("document.querySelector('.frame').focus()")
    key = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39}
    tab.call("Input.dispatchKeyEvent", type="keyDown", **key)
    tab.call("Input.dispatchKeyEvent", type="keyUp", **key)
    assert tab.run("document.querySelector('.where').textContent") == "2/4"


def test_copying_says_what_happened(tab):
    tab.run("document.getElementById('copy').click()")
    tab.wait_for("document.getElementById('copy').textContent !== 'Copy'")


@contextmanager
def serving(folder, port):
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--default-artifact-root", str(folder / "artifacts"), "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield _answering(f"http://127.0.0.1:{port}")
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(tmp_path, port):
    with serving(tmp_path, port) as address:
        yield address


def _answering(address):
    for _ in range(180):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(1)
        else:
            return address
    raise AssertionError("the MLflow server did not start")


def test_the_mlflow_link_shows_one_line_for_each_model_against_epsilon(server, results, other):
    log_run(results, "required", server)
    link = log_run(other, "required", server)
    assert link.startswith(f"{server}/#/experiments/")
    with Browser(width=1600, height=1100) as browser:
        browser.open(link)
        charts = "[...document.querySelectorAll('.js-plotly-plot')]"
        browser.wait_for(f"{charts}.filter(chart => chart.querySelectorAll('.trace').length).length >= 2", seconds=180)
        first = f"{charts}[0]"
        lines = browser.run(f"{first}.data.filter(line => line.x).map(line => [line.name, line.x, line.y])")
        assert browser.run(f"{first}.layout.xaxis.title.text || {first}.layout.xaxis.title") == "x_eps/linf-frame"
    curves = {"toy": results, "toy-b": other}
    drawn = {name: (x, y) for name, x, y in lines if name in curves}
    assert drawn.keys() == curves.keys()
    for name, run in curves.items():
        assert drawn[name] == ([0, 0.5, 1, 2, 4], pytest.approx(list(run.curve("linf-frame").acc)))


def test_a_server_that_dies_between_two_calls_costs_seconds_and_sync_completes_the_run(
    results, tmp_path, port, monkeypatch, caplog
):
    send_files, dead_since = mlflow._send_files, []

    def die_then_send(target, run):
        stop()
        dead_since.append(time.monotonic())
        send_files(target, run)

    with ExitStack() as stack:
        address = stack.enter_context(serving(tmp_path, port))
        stop = stack.pop_all().close  # the server goes when half of the run is told
        monkeypatch.setattr(mlflow, "_send_files", die_then_send)
        assert log_run(results, "auto", address) is None
    assert time.monotonic() - dead_since[0] < 10
    assert "robustvid sync" in caplog.text
    monkeypatch.undo()
    with serving(tmp_path, port) as address:
        for _ in range(2):
            log_run(results, "required", address)
        client = MlflowClient(address)
        runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
        assert len(runs) == 1
        assert runs[0].data.tags["robustvid.status"] == "complete"
        key = "robust_acc/linf-frame/worst"
        assert len(client.get_metric_history(runs[0].info.run_id, key)) == 5
