"""The door to MLflow's tracking: one MLflow run per run directory, found again however often it is asked for.

The server is $MLFLOW_TRACKING_URI; without it, a SQLite file and a folder of artefacts in $MEMR1_HOME.
Left out: the registry of models (`memr1.registry.promotion`).
"""

import json
import logging
import os
import sqlite3
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memr1.config import RunConfig
from memr1.environment import find_home, set_environment_defaults
from memr1.errors import RegistryError
from memr1.evaluation.comparison import EvaluationReport
from memr1.evaluation.scores import SystemScore
from memr1.records import write_json
from memr1.run_dir import RunDir

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
EXPERIMENT = "memr1"
KEY_TAG = "memr1.run_key"
PROBE_SECONDS = 5.0
MAX_PARAMS_AT_ONCE = 100  # MLflow's limit on one request
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own 7 keep a run waiting for minutes on a server that is gone
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",  # a bundle need not tell which secrets the machine has
}


def tracking_uri() -> str:
    """The address of the MLflow server or database that memr1 uses."""
    set_environment_defaults()
    return os.environ["MLFLOW_TRACKING_URI"]


def connect() -> "MlflowClient":
    """A client whose server answers. Raises RegistryError, naming the address, within seconds otherwise."""
    uri = tracking_uri()
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    _probe(uri)
    with mlflow_errors("connect to MLflow"):
        import mlflow

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        return mlflow.MlflowClient(uri, uri)


@contextmanager
def mlflow_errors(doing: str) -> Iterator[None]:
    """Turn what MLflow and its transport raise into a RegistryError that names the address."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        reason = " ".join(str(error).split())[:400]
        raise RegistryError(f"cannot {doing} at {tracking_uri()}: {reason}. Check $MLFLOW_TRACKING_URI.") from error


def run_key(run: RunDir) -> str:
    """What tells this run directory from every other, wherever it is copied: made once, kept in tracking.json."""
    path = run.root / "tracking.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["run_key"])
    except FileNotFoundError:
        key = uuid.uuid4().hex
        write_json(path, {"run_key": key})
        return key
    except (OSError, ValueError, KeyError) as error:
        raise RegistryError(f"{path} is damaged ({error}): remove it to begin a new MLflow run") from error


def open_mlflow_run(client: "MlflowClient", run: RunDir, config: RunConfig) -> str:
    """Id of the run directory's MLflow run, created with its parameters on first use."""
    key = run_key(run)
    with mlflow_errors("open an MLflow run"):
        experiment_id = open_experiment(client)
        found = client.search_runs([experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {KEY_TAG: key, "memr1.run_dir": str(run.root.resolve()), "memr1.profile": config.profile}
        created = client.create_run(experiment_id, run_name=run.root.resolve().name, tags=tags)
        _log_params(client, created.info.run_id, config)
        return str(created.info.run_id)


def open_experiment(client: "MlflowClient") -> str:
    """Id of memr1's experiment, created on first use."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    # Without a server MLflow would put artefacts into ./mlruns of whatever directory the process is in.
    has_server = tracking_uri().startswith(("http:", "https:", "databricks"))
    location = None if has_server else (find_home() / "artifacts").as_uri()
    return _create_experiment(client, location)


def _create_experiment(client: "MlflowClient", location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
    except MlflowException as error:
        found = client.get_experiment_by_name(EXPERIMENT)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return str(found.experiment_id)  # another run began at the same moment


class TrainingStream:
    """Sends the steps of one training phase to MLflow as they are taken; each step once, also after a resume.

    A server that goes away does not end a training: that is logged once, and `send_all` makes up for it later.
    """

    def __init__(self, run: RunDir, config: RunConfig, phase: str) -> None:
        """Raises RegistryError when the server does not answer: better before the training than after it."""
        self._client = connect()
        self._mlflow_run = open_mlflow_run(self._client, run, config)
        self._phase = phase
        self._last_step = self._find_last_step()
        self._is_broken = False

    def send(self, step: Mapping[str, float]) -> None:
        """Send one line of metrics.jsonl. Never raises."""
        if self._is_broken:
            return
        try:
            self._send([step])
        except RegistryError as error:
            self._is_broken = True
            log.warning("training goes on without MLflow; its steps are sent at the end (%s)", error)

    def send_all(self, steps: Sequence[Mapping[str, float]]) -> None:
        """Send what has not been sent yet. Raises RegistryError."""
        self._send(steps)

    def send_served(self, step: int) -> None:
        """Say which step's weights are served. Raises RegistryError."""
        with mlflow_errors("log the served step"):
            self._client.log_metric(self._mlflow_run, f"{self._phase}/served_step", step)

    def _send(self, steps: Sequence[Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        for step in steps:
            number = int(step["step"])
            if number <= self._last_step:
                continue
            now = int(time.time() * 1000)
            values = {name: float(value) for name, value in step.items() if name != "step"}
            metrics = [Metric(f"{self._phase}/{name}", value, now, number) for name, value in values.items()]
            with mlflow_errors("log training metrics"):
                self._client.log_batch(self._mlflow_run, metrics=metrics)
            self._last_step = number

    def _find_last_step(self) -> int:
        with mlflow_errors("read training metrics"):
            history = [
                metric
                for name in ("reward", "validation_reward")  # a line has at least one of them
                for metric in self._client.get_metric_history(self._mlflow_run, f"{self._phase}/{name}")
            ]
        return max((int(metric.step) for metric in history), default=0)


def log_evaluation(client: "MlflowClient", mlflow_run: str, run: RunDir, report: EvaluationReport) -> None:
    """Log every system's figures, and the report's files."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(f"evaluation/{name}/{metric}", value, now, 0)
        for name, score in report.systems.items()
        for metric, value in headline(score).items()
    ]
    with mlflow_errors("log the evaluation"):
        client.log_batch(mlflow_run, metrics=metrics)
        for name in ("report.json", "report.md", "report.html"):
            client.log_artifact(mlflow_run, str(run.evaluation / name), "evaluation")
        client.log_artifact(mlflow_run, str(run.config))


def headline(score: SystemScore) -> dict[str, float]:
    """A system's figures by name, without those that the data does not give."""
    figures = {
        "exact_match": score.exact_match,
        "f1": score.f1,
        "bleu1": score.bleu1,
        "locomo_f1": score.locomo_f1,
        "evidence_recall": score.evidence_recall,
    }
    return {name: value for name, value in figures.items() if value is not None}


def _probe(uri: str) -> None:
    """Find out in seconds that nobody answers; MLflow itself would retry for minutes."""
    if uri.startswith(("http://", "https://")):
        _probe_server(uri)
    elif uri.startswith("sqlite:///"):
        _probe_database(uri, Path(uri.removeprefix("sqlite:///")))


def _probe_server(uri: str) -> None:
    try:
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=PROBE_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # somebody answers: what they refuse will be said by the call that needs it
    except OSError as error:
        raise RegistryError(
            f"the MLflow server at {uri} does not answer ({error}). Start it, or set MLFLOW_TRACKING_URI to another; "
            "without it memr1 uses a SQLite file."
        ) from error


def _probe_database(uri: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sqlite3.connect(path, timeout=PROBE_SECONDS).close()
    except (OSError, sqlite3.Error) as error:
        raise RegistryError(
            f"cannot open the MLflow database {uri}: {error}. Set MLFLOW_TRACKING_URI, or MEMR1_HOME to a folder that "
            "you may write to."
        ) from error


def _log_params(client: "MlflowClient", mlflow_run: str, config: RunConfig) -> None:
    from mlflow.entities import Param

    params = [Param(name, value) for name, value in flatten(config.model_dump(mode="json"))]
    for start in range(0, len(params), MAX_PARAMS_AT_ONCE):
        client.log_batch(mlflow_run, params=params[start : start + MAX_PARAMS_AT_ONCE])


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as dotted names and texts, in order."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)
