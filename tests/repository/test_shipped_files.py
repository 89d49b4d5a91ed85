"""Files that the code looks for at run time are there, parse, and belong to the installed package."""

import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from memr1.config import AGENTS, RunConfig, load_config, profile_names

ROOT = Path(__file__).parents[2]
DEEPSPEED_CONFIGS = sorted((ROOT / "deepspeed_configs").glob("*.json"))
SUITES = sorted((ROOT / "expectations").glob("*.json"))


@pytest.mark.parametrize("profile", profile_names())
def test_every_profile_parses(profile: str) -> None:
    assert load_config(profile).profile == profile


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize("profile", profile_names())
def test_every_profile_trains_by_either_algorithm_and_resolves_to_itself(profile: str, algorithm: str) -> None:
    config = load_config(profile, [f"training.algorithm={algorithm}"])
    assert config.training.algorithm == algorithm
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("profile", ["qwen2.5-3b", "qwen2.5-7b", "qwen2.5-14b", "llama-3.1-8b"])
def test_the_papers_profiles_say_what_the_paper_says(profile: str) -> None:
    training = load_config(profile).training
    assert (training.prompts_per_step, training.temperature, training.schedule) == (128, 1.0, "constant")
    assert training.num_processes == (8 if profile == "qwen2.5-14b" else 4)
    assert training.max_prompt_tokens == 4096
    for agent in AGENTS:
        config = load_config(profile)
        assert config.agent(agent).max_new_tokens == 2048 and config.agent(agent).prompt == "paper"
        assert config.agent_training(agent).learning_rate == 1e-6
    critic = load_config(profile, ["training.algorithm=ppo"]).training
    assert critic.algorithm == "ppo" and critic.critic_learning_rate == 1e-5


@pytest.mark.parametrize("path", DEEPSPEED_CONFIGS, ids=lambda path: path.stem)
def test_every_deepspeed_config_shards_and_leaves_the_rest_to_the_run(path: Path) -> None:
    config = json.loads(path.read_text())
    stage = config["zero_optimization"]["stage"]
    assert path.stem.startswith(f"zero{stage}")
    assert config["train_batch_size"] == "auto"
    assert config["train_micro_batch_size_per_gpu"] == "auto"


def test_the_deepspeed_configs_are_those_that_the_configuration_offers() -> None:
    assert [path.stem for path in DEEPSPEED_CONFIGS] == ["zero1", "zero2", "zero3", "zero3_offload"]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_is_named_after_its_artefact(path: Path) -> None:
    suite = json.loads(path.read_text())
    assert suite["name"] == path.stem
    assert suite["expectations"]


def test_there_is_a_suite_for_every_artefact_that_crosses_a_stage() -> None:
    assert {path.stem for path in SUITES} == {"turns", "questions", "memory_entries", "training_examples"}


def test_every_data_file_of_the_package_is_packed() -> None:
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["memr1"]
    folder = ROOT / "memr1"
    found = {path for pattern in packed for path in folder.glob(pattern)}
    data = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data - found == set()


def test_the_constraints_are_pinned_and_name_no_package_index() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all("==" in line and "/" not in line for line in lines)


@pytest.mark.parametrize("tool", ["PYTHON", "CXX"])
def test_a_missing_prerequisite_is_named_before_anything_is_installed(tool: str) -> None:
    environ = {**os.environ, "PYTHON": "python3", tool: "/nowhere/to/be/found"}
    done = subprocess.run(["sh", ".ci/prerequisites"], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert "/nowhere/to/be/found" in done.stderr
    assert "Install" in done.stderr or "install" in done.stderr
