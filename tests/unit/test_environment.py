"""The defaults of every process: what they are, and that a user's own settings win."""

from pathlib import Path

import pytest

from memr1 import environment
from memr1.errors import ConfigError


def test_state_goes_into_the_home_folder_and_paths_are_absolute() -> None:
    defaults = environment.environment_defaults({"MEMR1_HOME": "some/home"})
    home = Path.cwd() / "some/home"
    assert defaults["PREFECT_HOME"] == str(home / "prefect")
    assert defaults["MLFLOW_TRACKING_URI"] == f"sqlite:///{home}/mlflow.db"


def test_what_the_user_has_set_is_left_alone() -> None:
    environ = {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "OMP_NUM_THREADS": "8"}
    environment.set_environment_defaults(environ)
    assert environ["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert environ["OMP_NUM_THREADS"] == "8"
    assert environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_hidden_gpu_is_no_gpu() -> None:
    assert not environment.has_gpu({"CUDA_VISIBLE_DEVICES": ""})
    assert not environment.has_gpu({"CUDA_VISIBLE_DEVICES": "-1"})
    assert environment.environment_defaults({"CUDA_VISIBLE_DEVICES": ""})["DS_ACCELERATOR"] == "cpu"


@pytest.mark.parametrize(("names_hub_model", "set_before", "expected"), [(False, {}, "1"), (True, {}, "0")])
def test_the_hub_is_only_reached_for_a_model_of_the_hub(
    names_hub_model: bool, set_before: dict[str, str], expected: str
) -> None:
    environment.set_hub_default(names_hub_model, set_before)
    assert set_before["HF_HUB_OFFLINE"] == expected


def test_a_user_who_is_offline_stays_offline() -> None:
    environ = {"HF_HUB_OFFLINE": "1"}
    environment.set_hub_default(True, environ)
    assert environ["HF_HUB_OFFLINE"] == "1"


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MEMR1_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(ConfigError, match="file/home"):
        environment.make_home()
