"""``robustvid ui``: MLflow's pages on the runs of this folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress

import click

from robustvid.errors import RobustvidError


@click.command(
    epilog="""\b
Examples:
  robustvid ui
  robustvid ui --port 5001 --store sqlite:////data/mlflow.db
"""
)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--store", help="Database of the runs.  [default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db]")
def ui(port: int, store: str | None) -> None:
    """Start `mlflow server` on this machine alone and print the links to the curves; Ctrl-C ends it."""
    from robustvid.reporting.mlflow import SILENT, experiments, local_store

    uri = local_store(store)
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise RobustvidError(f"something answers on port {port} already: open it, or give another --port")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server has to end with us, however we are ended
    links = experiments(uri, f"http://127.0.0.1:{port}")
    for name, link in links.items():
        click.echo(f"{name}\n  {link}")
    if not links:
        click.echo("No runs of robustvid in it yet: robustvid attack makes the first.")
    click.echo("Starting MLflow ...", nl=False)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        # In a process group of its own: Ctrl-C is ours to see, and the server is ended with all its workers.
        server = subprocess.Popen(  # noqa: S603  arguments are ours, and no shell reads them
            command, env=os.environ | SILENT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until_ready(server, port)
            click.echo(" the links work. Ctrl-C ends it.")
            server.wait()
        except KeyboardInterrupt:
            click.echo()
            return
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
        log.seek(0)
        raise RobustvidError(f"mlflow server ended with code {server.returncode}: {_last_words(log.read())}")


def _wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    while server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return
        time.sleep(0.3)


def _last_words(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line] or lines
    return told[-1][:300] if told else "it said nothing"
