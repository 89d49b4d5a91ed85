"""What this machine is and what it lacks: the facts of environment.json, and the checks of `memr1 doctor`.

Imports none of the libraries it reports on.
"""

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Literal

from memr1.environment import find_home, has_gpu
from memr1.records import Record

LIBRARIES = (
    "memr1 torch transformers trl peft accelerate deepspeed prefect mlflow great-expectations lancedb weaviate-client "
    "boto3"
).split()
NEEDED_DISK_GB = 2.0  # after installation: one run, the registry, the caches
NEEDED_MEMORY_GB = 4.0


class Check(Record):
    """One line of `memr1 doctor`. `fix` says what to do when the check is not "ok"."""

    name: str
    state: Literal["ok", "missing", "optional"]
    found: str
    fix: str = ""


def describe_machine(checkout: Path) -> dict[str, object]:
    """Versions, commit and hardware, for environment.json."""
    return {
        "memr1_commit": find_commit(checkout),
        "python": platform.python_version(),
        "libraries": {name: find_version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "num_cpus": count_cpus(),
        "memory_gb": round(memory_gb(), 1),
        "gpus": list_gpus(),
        "command": sys.argv,
    }


def check_machine() -> list[Check]:
    """Everything a run needs or can use, in the order in which a user would repair it."""
    return [
        _check_python(),
        _check_compiler(),
        *(_check_library(name) for name in LIBRARIES[1:]),
        _check_size("memory", memory_gb(), NEEDED_MEMORY_GB, "close other programs, or use a larger machine"),
        _check_size("free disk", free_disk_gb(Path.cwd()), NEEDED_DISK_GB, "make room, or set MEMR1_HOME elsewhere"),
        _check_home(),
        _check_gpu(),
        *(_check_variable(*item) for item in _VARIABLES),
    ]


def find_version(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def find_commit(checkout: Path) -> str | None:
    """The checkout's git commit, with "+changes" when files differ from it; None outside git."""
    head = _output(["git", "-C", str(checkout), "rev-parse", "HEAD"])
    changed = _output(["git", "-C", str(checkout), "status", "--porcelain", "--untracked-files=no"])
    return f"{head}+changes" if head and changed else head or None


def find_compiler() -> str | None:
    """Path of the C++ compiler that deepspeed will call ($CXX, else g++)."""
    return shutil.which(os.environ.get("CXX") or "g++")


def count_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float:
    """Physical memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def free_disk_gb(folder: Path) -> float:
    """Free space in GiB on the disk that holds `folder`."""
    return shutil.disk_usage(folder).free / 2**30


def list_gpus() -> list[str]:
    """Names of the NVIDIA GPUs, as their driver tells them; empty without one."""
    if not has_gpu():
        return []
    return _output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]).splitlines()


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _check_python() -> Check:
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    fix = "" if good else "install Python 3.11, remove .venv and run make again"
    return Check(name="python", state="ok" if good else "missing", found=platform.python_version(), fix=fix)


def _check_compiler() -> Check:
    path = find_compiler()
    fix = "" if path else "training builds a small C++ extension: install g++ (Debian and Ubuntu: apt install g++)"
    return Check(name="C++ compiler", state="ok" if path else "missing", found=path or "none", fix=fix)


def _check_library(name: str) -> Check:
    version = find_version(name)
    fix = "" if version else "uv pip install -c constraints.txt -e '.[dev]'"
    return Check(name=name, state="ok" if version else "missing", found=version or "not installed", fix=fix)


def _check_size(name: str, size_gb: float, needed_gb: float, fix: str) -> Check:
    good = size_gb >= needed_gb
    found = f"{size_gb:.1f} GiB" + ("" if good else f", needed {needed_gb:.0f}")
    return Check(name=name, state="ok" if good else "missing", found=found, fix="" if good else fix)


def _check_home() -> Check:
    home = find_home()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    good = existing.is_dir() and os.access(existing, os.W_OK)
    fix = "" if good else "set MEMR1_HOME to a folder that you may write to"
    return Check(name="MEMR1_HOME", state="ok" if good else "missing", found=str(home), fix=fix)


def _check_gpu() -> Check:
    gpus = list_gpus()
    fix = "" if gpus else "none needed for the tiny models; larger ones train on NVIDIA GPUs with a CUDA driver"
    return Check(name="GPU", state="ok" if gpus else "optional", found="; ".join(gpus) or "none", fix=fix)


_VARIABLES = (
    ("PREFECT_API_URL", "", "a server started and ended with each run; set it to use a lasting one"),
    ("MLFLOW_TRACKING_URI", "", ""),
    ("MEMR1_ENDPOINT_URL", "", "needed only by generators of kind endpoint"),
    ("WEAVIATE_URL", "", 'needed only when bank.kind is "weaviate"'),
    ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "credentials are needed only when storage.uri is set"),
)


def _check_variable(name: str, or_name: str, fix: str) -> Check:
    found = os.environ.get(name) or ("set" if or_name and os.environ.get(or_name) else "")
    label = f"{name} or {or_name}" if or_name else name
    return Check(name=label, state="ok" if found else "optional", found=found or "not set", fix="" if found else fix)
