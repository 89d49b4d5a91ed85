"""How a run begins or goes on: which configuration, which directory, who else is using it, and where it logs.

Nothing is created before the configuration has been accepted.
"""

import fcntl
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memr1.config import AGENTS, RunConfig, load_config, read_resolved_config
from memr1.console import write_log_file
from memr1.data.stored import read_identity
from memr1.environment import set_hub_default
from memr1.errors import ConfigError, DatasetFormatError
from memr1.machine import describe_machine
from memr1.model_options import GeneratorConfig
from memr1.records import write_json
from memr1.run_dir import RunDir, file_digest

log = logging.getLogger(__name__)
RUNS_FOLDER = Path("runs")
LOCK_NAME, LOG_NAME = "run.lock", "memr1.log"
_locked: set[Path] = set()  # run directories that this process holds


@dataclass(frozen=True)
class OpenRun:
    """A run that this process may write to."""

    run: RunDir
    config: RunConfig
    logs: Path  # logs/attempt_<n> of this process

    @property
    def log_file(self) -> Path:
        return self.logs / LOG_NAME


def start_run(
    source: str, overrides: Sequence[str] = (), dataset: str | None = None, run_dir: Path | None = None
) -> RunDir:
    """The run directory for a profile, a TOML file, or a run directory to go on with. Raises ConfigError."""
    given = RunDir(Path(source))
    if not given.config.is_file():
        return prepare_run(resolve_config(source, overrides, dataset), run_dir)
    if overrides or dataset is not None or run_dir not in (None, given.root):
        raise ConfigError(f"{source} is a run directory: it goes on with its own options, so give no others")
    return prepare_run(read_config(given), given.root)


def resolve_config(source: str, overrides: Sequence[str] = (), dataset: str | None = None) -> RunConfig:
    """`load_config`, with `dataset` as a short way to set data.path. Raises ConfigError."""
    if dataset is not None:
        overrides = [*overrides, f"data.path={json.dumps(dataset)}"]
    return load_config(source, overrides)


def prepare_run(config: RunConfig, run_dir: Path | None = None, runs_folder: Path = RUNS_FOLDER) -> RunDir:
    """The directory for this configuration, with its config.json: the given one, an unfinished run's, or a new one.

    Raises ConfigError when the directory belongs to another configuration or dataset, or cannot be written to.
    """
    try:
        if run_dir is not None:
            run = _given_run(config, RunDir(run_dir))
        else:
            run = _unfinished_run(config, runs_folder) or _new_run(config, runs_folder)
        _probe_writable(run.root)
    except OSError as error:
        where = error.filename or run_dir or runs_folder
        raise ConfigError(
            f"cannot write to {where}: {error.strerror}. Choose a folder that you may write to with --run-dir."
        ) from error
    return run


@contextmanager
def open_run(run: RunDir) -> Iterator[OpenRun]:
    """Hold the run directory while inside, and log into its next attempt. Inside another `open_run` it only looks.

    Raises ConfigError when the directory is no run, or when another process holds it.
    """
    config = read_config(run)
    set_hub_default(names_hub_model(config))
    root = run.root.resolve()
    if root in _locked:
        yield OpenRun(run, config, run.logs / "latest")
        return
    with _hold(root):
        attempt = _next_attempt(run)
        write_json(run.environment, {**describe_machine(_checkout()), "seeds": {"run": config.seed}})
        with write_log_file(attempt / LOG_NAME):
            yield OpenRun(run, config, attempt)


def read_config(run: RunDir) -> RunConfig:
    """The configuration of a run directory. Raises ConfigError when it is none."""
    if not run.config.is_file():
        raise ConfigError(f"{run.root} is not a run directory (no config.json): start one with `memr1 run PROFILE`")
    return read_resolved_config(run.config)


def names_hub_model(config: RunConfig) -> bool:
    """Whether a generator is neither the shipped model nor a local folder."""
    generators: list[GeneratorConfig | None] = [config.agent(name).generator for name in AGENTS]
    return any(
        item is not None and item.kind == "transformers" and item.model != "tiny" and not Path(item.model).exists()
        for item in [*generators, config.extraction.generator]
    )


def differing_options(config: RunConfig, other: RunConfig) -> list[str]:
    """One line per option that differs: `section.field: value, there other`."""
    here, there = (flatten(item.model_dump(mode="json")) for item in (config, other))
    names = dict.fromkeys([*here, *there])
    return [
        f"{name}: {json.dumps(here.get(name))}, there {json.dumps(there.get(name))}"
        for name in names
        if here.get(name) != there.get(name)
    ]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `section.field` → value."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _given_run(config: RunConfig, run: RunDir) -> RunDir:
    if not run.config.exists():
        if run.root.is_dir() and any(run.root.iterdir()):
            raise ConfigError(f"{run.root} holds other files and is not a run directory: choose another --run-dir")
        return _write_config(config, run)
    differences = differing_options(config, read_config(run))
    if differences:
        raise ConfigError(
            f"{run.root} was started with another configuration:\n  "
            + "\n  ".join(differences)
            + "\nUse the same options, or another --run-dir."
        )
    if _dataset_changed(config, run):
        raise ConfigError(f"{run.root} has validated another content of {_data_path(config)}: use another --run-dir")
    return run


def _unfinished_run(config: RunConfig, runs_folder: Path) -> RunDir | None:
    """The newest run of the same configuration and data that has not finished and that nobody is working on."""
    for path in sorted(runs_folder.glob("*/config.json"), key=lambda item: item.stat().st_mtime, reverse=True):
        run = RunDir(path.parent)
        if not _same_config(config, run) or run.read_done("register") is not None or _dataset_changed(config, run):
            continue
        if _is_held(run.root):
            log.info("%s is being worked on by another process: starting a new run", run.root)
            continue
        log.info("continuing the unfinished run %s (same configuration)", run.root)
        return run
    return None


def _same_config(config: RunConfig, run: RunDir) -> bool:
    try:
        return read_config(run) == config
    except ConfigError:
        return False  # an older memr1's run


def _dataset_changed(config: RunConfig, run: RunDir) -> bool:
    path = _data_path(config)
    try:
        validated = read_identity(run).sha256
    except DatasetFormatError:
        return False  # not validated yet
    return path is not None and path.is_file() and file_digest(path) != validated


def _data_path(config: RunConfig) -> Path | None:
    return None if config.data.kind == "synthetic" else config.data.path


def _new_run(config: RunConfig, runs_folder: Path) -> RunDir:
    name = f"{config.profile}-{time.strftime('%Y%m%d-%H%M%S')}"
    runs_folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        root = runs_folder / (name if number == 1 else f"{name}-{number}")
        try:
            root.mkdir()
        except FileExistsError:
            number += 1  # two runs began in the same second
            continue
        log.info("new run %s", root)
        return _write_config(config, RunDir(root))


def _write_config(config: RunConfig, run: RunDir) -> RunDir:
    write_json(run.config, config.model_dump(mode="json"))
    return run


def _probe_writable(root: Path) -> None:
    with tempfile.TemporaryFile(dir=root):
        pass


@contextmanager
def _hold(root: Path) -> Iterator[None]:
    with (root / LOCK_NAME).open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another process is working on {root}: wait for it, or choose another run") from error
        _locked.add(root)
        try:
            yield
        finally:
            _locked.discard(root)


def _is_held(root: Path) -> bool:
    try:
        with _hold(root.resolve()):
            return False
    except ConfigError:
        return True


def _next_attempt(run: RunDir) -> Path:
    """Make logs/attempt_<n> and point logs/latest at it."""
    numbers = [int(path.name.removeprefix("attempt_")) for path in run.logs.glob("attempt_[0-9]*")]
    attempt = run.logs / f"attempt_{max(numbers, default=0) + 1}"
    attempt.mkdir(parents=True)
    link = run.logs / "latest.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(attempt.name)
    os.replace(link, run.logs / "latest")
    return attempt


def _checkout() -> Path:
    return Path(__file__).resolve().parents[1]
