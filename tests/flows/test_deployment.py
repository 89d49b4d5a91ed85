"""The pipeline as it is operated: a Prefect server, a process worker, the deployments of prefect.yaml."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import fresh_environment

pytestmark = [pytest.mark.slow, pytest.mark.service]
ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect"]
START_SECONDS, RUN_SECONDS = 180, 900
STAGE_FLOWS = ["validate", "build-bank", "train", "train", "evaluate", "register"]


@dataclass
class Operated:
    """A server that is up, and what `prefect deployment run … --watch` said."""

    api: str
    watched: subprocess.CompletedProcess[str]
    run_dir: Path

    def ask(self, path: str, **body: Any) -> Any:
        return httpx.post(f"{self.api}/{path}", json=body, timeout=30).raise_for_status().json()


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory, small_profile: Path) -> Iterator[Operated]:
    """Server and worker as docs/operations.md starts them; the worker is stopped first."""
    folder = tmp_path_factory.mktemp("operated")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    api = f"http://127.0.0.1:{port}/api"
    told = subprocess.run(
        [sys.executable, "-m", "flows.cli", "environment"],
        cwd=ROOT,
        env=fresh_environment(folder / "home"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    exports = dict(line.removeprefix("export ").split("=", 1) for line in told.splitlines())
    environ = {**fresh_environment(folder / "home"), **exports, "PREFECT_API_URL": api, "PWD": str(ROOT)}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(start([*PREFECT, "server", "start", "--port", port], environ, folder / "server.log"))
        wait_until(lambda: answers(f"{api}/health"), START_SECONDS, folder / "server.log")
        prefect(environ, "work-pool", "create", "memr1", "--type", "process")
        prefect(environ, "deploy", "--all")
        processes.append(start([*PREFECT, "worker", "start", "--pool", "memr1"], environ, folder / "worker.log"))
        run_dir = folder / "the_run"
        parameters = ["--param", f"profile={small_profile}", "--param", f"run_dir={run_dir}"]
        watched = prefect(environ, "deployment", "run", "memr1/adhoc", *parameters, "--watch", check=False)
        yield Operated(api, watched, run_dir)
    finally:
        for process in reversed(processes):
            stop(process)


def start(command: list[str], environ: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Start a process with signals as an interactive shell gives them: a script's `&` would have them ignored."""
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def prefect(environ: dict[str, str], *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PREFECT, "--no-prompt", *words], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=RUN_SECONDS
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def wait_until(is_so: Callable[[], bool], seconds: float, log: Path | None = None) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, log.read_text() if log else "waited in vain"
        time.sleep(0.5)


def test_a_watched_adhoc_run_completes(operated: Operated) -> None:
    assert operated.watched.returncode == 0, operated.watched.stdout + operated.watched.stderr
    assert (operated.run_dir / "6_registry" / "registration.json").is_file()


def test_every_stage_is_a_run_in_the_server(operated: Operated) -> None:
    runs = operated.ask("flow_runs/filter", sort="EXPECTED_START_TIME_ASC")
    flows = {flow["id"]: flow["name"] for flow in operated.ask("flows/filter")}
    done = [flows[run["flow_id"]] for run in runs if run["state_type"] == "COMPLETED"]
    assert done[0] == "memr1"
    assert done[1:] == STAGE_FLOWS


def test_the_librarys_lines_are_logs_of_the_server(operated: Operated) -> None:
    lines = [entry["message"] for entry in operated.ask("logs/filter", limit=200, sort="TIMESTAMP_ASC")]
    assert any(line.startswith("[1/6] validate: conversations ") for line in lines)
    assert any(line.startswith("training memory_manager: ") for line in lines)


def test_the_results_table_is_an_artifact(operated: Operated) -> None:
    artifacts = operated.ask("artifacts/filter", artifacts={"key": {"any_": ["memr1-results"]}})
    table = json.loads(artifacts[0]["data"])
    assert artifacts[0]["type"] == "table"
    assert {row["system"] for row in table} == {"warm_start", "trained", "always_add"}


def test_the_nightly_deployment_has_scheduled_runs(operated: Operated) -> None:
    nightly = next(item for item in operated.ask("deployments/filter") if item["name"] == "nightly")

    def scheduled() -> list[Any]:
        states = {"state": {"type": {"any_": ["SCHEDULED"]}}}
        found: list[Any] = operated.ask("flow_runs/filter", flow_runs=states)
        return [run for run in found if run["deployment_id"] == nightly["id"]]

    wait_until(lambda: len(scheduled()) > 0, 120)
    assert scheduled()[0]["parameters"]["profile"] == "quickstart"


def test_the_deployments_run_in_this_checkout(operated: Operated) -> None:
    for deployment in operated.ask("deployments/filter"):
        step = deployment["pull_steps"][0]["prefect.deployments.steps.set_working_directory"]
        assert step["directory"] == str(ROOT)
        assert deployment["work_pool_name"] == "memr1"
