"""The server that a command starts for itself: it answers, it ends with its block, and with its parent."""

import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from flows.local_server import LocalServer, temporary_server
from memr1.errors import ConfigError
from tests.processes import fresh_environment, is_running, wait_until


@pytest.mark.service
def test_it_answers_inside_its_block_and_is_gone_afterwards(tmp_path: Path) -> None:
    with temporary_server(tmp_path / "server.log") as server:
        server.wait_until_up()
        with urllib.request.urlopen(f"{server.api_url}/health") as response:
            assert response.status == 200
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{server.api_url}/health")


@pytest.mark.service
def test_it_does_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from flows.local_server import LocalServer\n"
        "server = LocalServer(Path(sys.argv[1]))\nserver.wait_until_up()\nprint(server._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "server.log")],
        env=fresh_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    child = int(done.stdout)
    wait_until(lambda: not is_running(child))


def test_a_server_that_cannot_start_is_an_error_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    server = LocalServer(tmp_path / "server.log")
    with pytest.raises(ConfigError, match=r"server\.log"):
        server.wait_until_up()
    server.stop()
