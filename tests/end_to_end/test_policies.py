"""Alternating training from a planted first round, and a shared policy: for real, by both algorithms."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from memr1.agents.bank_stage import build_training_banks
from memr1.bank.embedding import build_embedder
from memr1.config import AgentName, RunConfig, load_config
from memr1.data.loading import load_dataset
from memr1.data.stored import write_dataset
from memr1.data.validation import validate_dataset
from memr1.records import write_json
from memr1.rl.checkpoints import read_metrics
from memr1.rl.launch import launch_training
from memr1.rl.prepare import write_examples
from memr1.rl.tasks import start_location
from memr1.run_dir import RunDir
from memr1.tiny.weights import agent_folder

pytestmark = pytest.mark.slow
PHASE = "round_2_memory_manager"
SMALL = (
    "data.num_train=2",
    "data.num_validation=1",
    "data.num_test=1",
    "bank.kind=in_memory",
    "training.prompts_per_step=8",
    "training.completions_per_prompt=2",
)
ALTERNATING = (
    *SMALL,
    "training.policies.kind=alternating",
    "training.num_processes=1",
    "training.memory_manager.num_steps=1",
    "training.memory_manager.learning_rate=1e-12",  # too small to move a weight: what comes out is what went in
)


def begun_run(root: Path, *overrides: str) -> tuple[RunDir, RunConfig]:
    """A run whose data is ready."""
    run, config = RunDir(root), load_config("quickstart", overrides)
    write_json(run.config, config.model_dump(mode="json"))
    dataset, _ = validate_dataset(load_dataset(config.data, config.seed), run)
    write_dataset(run, dataset)
    return run, config


def run_after_round_1(root: Path, answer_agent: AgentName, *overrides: str) -> tuple[RunDir, RunConfig]:
    """A Memory Manager of shifted weights, the shipped `answer_agent` for an Answer Agent, and round 2's examples."""
    run, config = begun_run(root, *ALTERNATING, *overrides)
    model = shutil.copytree(agent_folder("memory_manager"), run.model("round_1_memory_manager"))
    save_file({name: 1.001 * tensor for name, tensor in weights_in(model).items()}, model / "model.safetensors")
    shutil.copytree(agent_folder(answer_agent), run.model("round_1_answer_agent"))
    for phase in ("round_1_answer_agent", PHASE):
        assert write_examples(run, config, phase, build_embedder(None)) > 0
    return run, config


def weights_in(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def are_equal(weights: dict[str, Any], others: dict[str, Any]) -> bool:
    names = weights.keys() & others.keys()  # a model that was trained spells out its output layer, which is tied
    assert weights.keys() ^ others.keys() <= {"lm_head.weight"}
    return all(torch.allclose(weights[name], others[name], rtol=0, atol=1e-7) for name in names)


def train(run: RunDir, config: RunConfig) -> dict[str, float]:
    """Take the phase's only step; return its line."""
    launch_training(run, config, PHASE, run.logs / "train.log")
    [step] = read_metrics(run.checkpoints(PHASE) / "metrics.jsonl")
    return dict(step)


def test_a_manager_starts_from_its_own_first_round_and_is_rewarded_through_the_answer_agents(tmp_path: Path) -> None:
    run, config = run_after_round_1(tmp_path, "answer_agent")
    assert start_location(run, config, PHASE) == run.model("round_1_memory_manager")
    step = train(run, config)
    assert are_equal(weights_in(run.model(PHASE)), weights_in(run.model("round_1_memory_manager")))
    assert not are_equal(weights_in(run.model(PHASE)), weights_in(agent_folder("memory_manager")))
    assert step["kl"] == pytest.approx(0.0, abs=1e-6)  # the reference is what the round starts from
    assert step["reward"] > 0.2


def test_an_answer_agent_that_lost_its_words_in_round_1_rewards_nobody_in_round_2_and_adapters_are_merged(
    tmp_path: Path,
) -> None:
    run, config = run_after_round_1(tmp_path, "memory_manager", "training.lora.rank=4")
    step = train(run, config)
    assert step["parse_failures"] < 0.5
    assert step["reward"] == 0.0
    assert not (run.model(PHASE) / "adapter_config.json").exists()
    assert are_equal(weights_in(run.model(PHASE)), weights_in(run.model("round_1_memory_manager")))
    assert sorted(path.name for path in run.checkpoints(PHASE).iterdir() if "partial" in path.name) == []


def test_a_shared_policy_learns_both_roles_by_ppo_in_two_processes(tmp_path: Path) -> None:
    options = ("training.policies.kind=shared", "training.policies.num_steps=4", "training.algorithm=ppo")
    run, config = begun_run(tmp_path, *SMALL, *options)
    build_training_banks(run, config, tmp_path / "vectors", lambda *_: None)
    assert write_examples(run, config, "shared", build_embedder(None)) > 0
    launch_training(run, config, "shared", run.logs / "train.log")
    lines = read_metrics(run.checkpoints("shared") / "metrics.jsonl")
    steps = [line for line in lines if "reward" in line]  # the others tell a validation score
    assert [step["step"] for step in steps] == [1, 3]  # two passes over the rollouts of each
    assert all("value_loss" in step and 0 < step["parse_failures"] < 1 for step in steps)
    assert steps[0]["memory_manager/reward"] > 0.0
    assert steps[0]["answer_agent/parse_failures"] > steps[0]["memory_manager/parse_failures"]
    assert not are_equal(weights_in(run.model("shared")), weights_in(agent_folder("memory_manager")))
