"""robustvid ui: a server that ends with the command."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from robustvid.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["ui", *arguments], catch_exceptions=False)


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_without_runs_it_says_where_they_would_be():
    told = run()
    assert told.exit_code == 2
    assert "there is no " in told.stderr
    assert "robustvid attack makes it" in told.stderr


def test_a_server_is_not_served_again(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:1")
    told = run()
    assert told.exit_code == 2
    assert "is a server already" in told.stderr
    assert "secret" not in told.output


def test_it_serves_until_it_is_ended(port, tmp_path):
    MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").create_experiment("robustvid-toy-quick.v1")
    command = [sys.executable, "-m", "robustvid", "ui", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as ui:
        assert ui.stdout.readline() == "robustvid-toy-quick.v1\n"
        assert f"http://127.0.0.1:{port}/#/experiments/" in ui.stdout.readline()
        assert "the links work" in ui.stdout.readline()
        assert answers(port)
        refused = run("--port", str(port))
        assert refused.exit_code == 2
        assert f"something answers on port {port} already" in refused.stderr
        ui.send_signal(signal.SIGTERM)
        assert ui.wait(timeout=60) == 0
    end = time.monotonic() + 30
    while answers(port):
        assert time.monotonic() < end
        time.sleep(0.3)
