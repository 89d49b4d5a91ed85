"""MLflow's tracking, for real: a SQLite database and a folder of artefacts in a temporary home."""

import json
import socket
import time
from pathlib import Path

import pytest

from memr1.config import RunConfig
from memr1.errors import RegistryError
from memr1.records import write_json
from memr1.registry.tracking import TrainingStream, connect, flatten, open_mlflow_run, run_key, tracking_uri
from memr1.run_dir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "runs" / "first")
    write_json(run.config, RunConfig().model_dump(mode="json"))
    return run


def step(number: int, reward: float) -> dict[str, float]:
    return {"step": number, "reward": reward, "kl": 0.01, "operations/ADD": 0.5}


def test_a_run_directory_is_one_mlflow_run_however_often_it_is_opened(registry_home: Path, run: RunDir) -> None:
    first = open_mlflow_run(connect(), run, RunConfig())
    assert open_mlflow_run(connect(), run, RunConfig()) == first
    found = connect().get_run(first)
    assert found.info.run_name == "first"
    assert found.data.params["training.memory_manager.num_steps"] == "30"
    assert found.data.params["data.kind"] == "synthetic"


def test_another_run_directory_is_another_mlflow_run_and_a_copied_one_is_the_same(
    registry_home: Path, run: RunDir
) -> None:
    other, copied = RunDir(run.root.with_name("second")), RunDir(run.root.with_name("copy"))
    first = open_mlflow_run(connect(), run, RunConfig())
    write_json(copied.root / "tracking.json", json.loads((run.root / "tracking.json").read_text()))
    assert open_mlflow_run(connect(), other, RunConfig()) != first
    assert open_mlflow_run(connect(), copied, RunConfig()) == first


def test_training_steps_are_sent_once_also_after_a_resume(registry_home: Path, run: RunDir) -> None:
    stream = TrainingStream(run, RunConfig(), "memory_manager")
    stream.send(step(1, 0.1))
    stream.send(step(2, 0.2))
    resumed = TrainingStream(run, RunConfig(), "memory_manager")
    resumed.send_all([step(1, 0.1), step(2, 0.2), step(3, 0.3)])
    mlflow_run = open_mlflow_run(connect(), run, RunConfig())
    history = connect().get_metric_history(mlflow_run, "memory_manager/reward")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert len(connect().get_metric_history(mlflow_run, "memory_manager/operations/ADD")) == 3


def test_a_line_that_only_validates_is_sent_once_and_so_is_the_served_step(registry_home: Path, run: RunDir) -> None:
    lines = [step(1, 0.1), {"step": 2, "validation_reward": 0.5}]
    for _ in range(2):
        stream = TrainingStream(run, RunConfig(), "memory_manager")
        stream.send_all(lines)
    stream.send_served(2)
    client, mlflow_run = connect(), open_mlflow_run(connect(), run, RunConfig())
    assert len(client.get_metric_history(mlflow_run, "memory_manager/validation_reward")) == 1
    assert client.get_run(mlflow_run).data.metrics["memory_manager/served_step"] == 2


def test_the_agents_steps_do_not_mix(registry_home: Path, run: RunDir) -> None:
    TrainingStream(run, RunConfig(), "memory_manager").send(step(5, 0.1))
    stream = TrainingStream(run, RunConfig(), "answer_agent")
    stream.send(step(1, 0.7))
    history = connect().get_metric_history(open_mlflow_run(connect(), run, RunConfig()), "answer_agent/reward")
    assert [metric.step for metric in history] == [1]


def test_nothing_is_written_into_the_working_directory(registry_home: Path, run: RunDir, tmp_path: Path) -> None:
    mlflow_run = open_mlflow_run(connect(), run, RunConfig())
    (tmp_path / "note.txt").write_text("kept")
    connect().log_artifact(mlflow_run, str(tmp_path / "note.txt"))
    assert {path.name for path in tmp_path.iterdir()} == {"home", "runs", "note.txt"}
    assert list((registry_home / "artifacts").rglob("note.txt"))


def test_a_server_that_is_down_is_named_within_seconds(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = time.monotonic()
    with pytest.raises(RegistryError, match=uri):
        connect()
    assert time.monotonic() - started < 5


def test_a_server_that_accepts_and_says_nothing_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memr1.registry.tracking.PROBE_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(RegistryError, match="does not answer"):
            connect()
        assert time.monotonic() - started < 5


def test_a_database_in_a_folder_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    with pytest.raises(RegistryError, match="/proc/nowhere"):
        connect()


def test_a_file_that_is_no_database_is_named(tmp_path: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, and long enough to be seen as something else " * 40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    started = time.monotonic()
    with pytest.raises(RegistryError, match=r"mlflow\.db"):
        open_mlflow_run(connect(), run, RunConfig())
    assert time.monotonic() - started < 10


def test_a_damaged_tracking_file_is_named(run: RunDir) -> None:
    (run.root / "tracking.json").write_text("{")
    with pytest.raises(RegistryError, match=r"tracking\.json"):
        run_key(run)


def test_the_default_is_a_database_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMR1_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_configuration_is_flattened_to_dotted_names() -> None:
    tree = {"seed": 7, "data": {"kind": "synthetic", "lora": None, "systems": ["a", "b"]}}
    assert list(flatten(tree)) == [
        ("seed", "7"),
        ("data.kind", "synthetic"),
        ("data.lora", "null"),
        ("data.systems", '["a", "b"]'),
    ]
