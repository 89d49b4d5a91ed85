"""memr1 processes that a test starts: their environment, and whether they live."""

import os
import time
from collections.abc import Callable
from pathlib import Path

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


def training_ranks(run: Path) -> list[int]:
    """Ids of the live processes that train in this run directory."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"memr1.rl.worker" in words and str(run.resolve()).encode() in words:
                found.append(int(folder.name))
    return found
