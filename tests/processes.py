"""memr1 processes that a test starts: their environment, and whether they live."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

MEMR1 = [sys.executable, "-m", "flows.cli"]
MINUTES_AT_MOST = 40  # a run takes two or three on a machine that does nothing else
OF_THE_HOME = ("MEMR1_HOME", "PREFECT_HOME", "MLFLOW_TRACKING_URI")


def fresh_environment(home: Path, **variables: str) -> dict[str, str]:
    """This process's environment with a home of its own, and everything that lies in it."""
    kept = {name: value for name, value in os.environ.items() if name not in OF_THE_HOME}
    return {**kept, "MEMR1_HOME": str(home), **variables}


def wait_until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return once it is so; an AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so within {seconds:.0f} s"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    """Whether the process lives: a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def memr1(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command line in `folder`, with `folder`/home as its home, to its end."""
    return subprocess.run(
        [*MEMR1, *map(str, words)],
        cwd=folder,
        env=fresh_environment(folder / "home"),
        capture_output=True,
        text=True,
        timeout=60 * MINUTES_AT_MOST,
    )


def memr1_killed_when(is_so: Callable[[], bool], folder: Path, *words: object) -> None:
    """Start the same command line and kill it, by SIGKILL, as soon as it is so."""
    process = subprocess.Popen(
        [*MEMR1, *map(str, words)],
        cwd=folder,
        env=fresh_environment(folder / "home"),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: is_so() or process.poll() is not None, 60.0 * MINUTES_AT_MOST)
    finally:
        process.send_signal(signal.SIGKILL)
        told = process.communicate()[1]
    assert is_so(), told
