"""A Prefect server for one command, where no lasting one is configured.

Prefect would start one too, but in the terminal's process group (Ctrl-C would end it before the run could tell it that
it was cancelled), after importing all of its code into the flow's process, and without leaving a log. Its database in
$PREFECT_HOME stays: `prefect server start` shows past runs.

    python -m flows.local_server PORT    the server's process; it ends with the process that started it
"""

import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memr1.errors import ConfigError

log = logging.getLogger(__name__)
HOST = "127.0.0.1"
START_SECONDS = 300.0  # a first start makes the database; the machine may be busy
STOP_SECONDS = 10.0
POLL_SECONDS = 0.05


@contextmanager
def temporary_server(log_path: Path) -> Iterator["LocalServer"]:
    """Start a server now; wait for it later, with `wait_until_up`. It is gone when the block ends."""
    server = LocalServer(log_path)
    try:
        yield server
    finally:
        server.stop()


class LocalServer:
    """The server's process and address."""

    def __init__(self, log_path: Path) -> None:
        port = _free_port()
        self.api_url = f"http://{HOST}:{port}/api"
        self._log_path = log_path
        with log_path.open("ab") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.local_server", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        """Return when it answers. Raises ConfigError, naming its log, when it ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{self.api_url}/health"):
            if self._process.poll() is not None:
                raise ConfigError(f"the Prefect server did not start; its own words: {self._log_path}")
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"the Prefect server did not answer within {START_SECONDS:.0f} s; its own words: {self._log_path}"
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask it to end; end it if it does not."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """The server's process: only what one run needs of it, so no schedules and no dashboard."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    quiet = ["--no-scheduler", "--no-late-runs", "--no-ui", "--analytics-off"]
    sys.argv = ["prefect", "server", "start", "--host", HOST, "--port", sys.argv[1], *quiet]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # a proxy cannot reach this machine's loopback
    try:
        with direct.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main()
