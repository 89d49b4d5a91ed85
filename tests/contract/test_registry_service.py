"""The registry over HTTP: a real MLflow server, and a real model server in front of the champion."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from memr1.data.stored import read_dataset
from memr1.errors import RegistryError
from memr1.registry.promotion import register_run
from memr1.registry.tracking import TrainingStream
from memr1.registry.versions import download_champion
from tests.contract.registry_runs import make_run, scripted

pytestmark = pytest.mark.service
START_SECONDS = 180.0  # a busy machine is slow to import


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(command: list[str], health: str, log: Path) -> Iterator[None]:
    """A server process and its children, for as long as the block runs."""
    # mlflow starts uvicorn by name, as it is found in an activated virtual environment
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        wait_for(health, process, log)
        yield
    finally:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(health: str, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(health, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"{health} did not answer in {START_SECONDS} s: {log.read_text()[-2000:]}")


def test_a_pair_is_registered_promoted_and_downloaded_through_a_server(
    registry_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", uri.rpartition(":")[2]]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{registry_home / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(registry_home / "served")]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with serving(command, f"{uri}/health", tmp_path / "server.log"):
        stream = TrainingStream(run, scripted("Rome"), "memory_manager")
        stream.send({"step": 1, "reward": 0.5})
        first = register_run(run, scripted("Rome"))
        assert first.promoted and register_run(run, scripted("Rome")) == first
        folder = download_champion("memr1")
        assert folder is not None and (folder / "pair.json").exists()
        assert list((registry_home / "served").rglob("pair.json"))  # through the server, not around it
    started = time.monotonic()
    stream.send({"step": 2, "reward": 0.6})  # the server is gone: training goes on
    with pytest.raises(RegistryError, match=uri):
        stream.send_all([{"step": 2, "reward": 0.6}])
    with pytest.raises(RegistryError, match=uri):
        register_run(run, scripted("Rome"))
    assert time.monotonic() - started < 30


def test_the_champion_answers_over_http(registry_home: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert register_run(run, scripted("Rome")).promoted
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/memr1@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with serving(command, f"http://127.0.0.1:{port}/ping", tmp_path / "serve.log"):
        row = {"conversation": read_dataset(run).conversations[0].model_dump_json(), "question": "Where does Ann live?"}
        assert ask(port, [row, row]) == [{"answer": "Rome"}, {"answer": "Rome"}]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(port, [{"conversation": "…"}])
        assert refused.value.code == 400


def ask(port: int, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps({"dataframe_records": rows}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return list(json.load(response)["predictions"])
