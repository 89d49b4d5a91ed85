"""The environment variables that every memr1 process starts with. What the user has set is left alone.

Import this first and call `set_environment_defaults()` before prefect, mlflow, transformers or deepspeed are imported:
they read their variables once. No library is imported here.

$MEMR1_HOME (default ./.memr1) holds what outlives a run: the registry, Prefect's database, caches.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

from memr1.errors import ConfigError

_ON_AWS = Path("/sys/devices/virtual/dmi/id/sys_vendor")
_GPU_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")  # NVIDIA, ROCm, and either of them under WSL


def set_environment_defaults(environ: MutableMapping[str, str] = os.environ) -> None:
    """Fill in what is not set; calling it again changes nothing."""
    for name, value in environment_defaults(environ).items():
        environ.setdefault(name, value)


def environment_defaults(environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Every variable memr1 cares about, with the value it takes when the user has not set it."""
    home = find_home(environ)
    defaults = {
        "MEMR1_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "memr1,flows",  # library logs reach the server; no library imports prefect
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # its own limit of 20 s is short of a busy machine
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",  # processes fork
    }
    if not has_gpu(environ):
        defaults |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    if not _runs_on_aws():
        defaults["AWS_EC2_METADATA_DISABLED"] = "true"  # otherwise boto3 waits for a metadata service that is not there
    return defaults


def find_home(environ: MutableMapping[str, str] = os.environ) -> Path:
    """$MEMR1_HOME, absolute: processes that start elsewhere must agree on it."""
    return Path(environ.get("MEMR1_HOME") or ".memr1").expanduser().absolute()


def make_home() -> None:
    """Create $MEMR1_HOME: Prefect does not create the parents of its own folder. Raises ConfigError."""
    try:
        find_home().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot create MEMR1_HOME={find_home()}: {error.strerror}. Set it to a folder you may write to"
        ) from error


def cache_folder() -> Path:
    """Where results that can be computed again are kept between runs."""
    return find_home() / "cache"


def embedding_cache() -> Path:
    """The file of known embeddings, shared by all runs and processes."""
    return cache_folder() / "embeddings.sqlite"


def verdict_cache() -> Path:
    """The file of a judge's verdicts, shared by all runs and processes."""
    return cache_folder() / "verdicts.sqlite"


def set_hub_default(names_hub_model: bool, environ: MutableMapping[str, str] = os.environ) -> None:
    """Keep transformers off the network, unless the run names a Hugging Face hub model or the user has decided."""
    environ.setdefault("HF_HUB_OFFLINE", "0" if names_hub_model else "1")


def has_gpu(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether a GPU's device file is here and not hidden from us. Asks no library."""
    hidden = environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return not hidden and any(True for pattern in _GPU_DEVICES for _ in Path("/dev").glob(pattern))


def _runs_on_aws() -> bool:
    try:
        return "Amazon" in _ON_AWS.read_text(encoding="utf-8")
    except OSError:
        return False
