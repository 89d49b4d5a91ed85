"""Training by trajectories for real: two processes, a curriculum of two stages, interrupted and resumed."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from memr1.agents.bank_stage import build_training_banks
from memr1.bank.embedding import build_embedder
from memr1.config import RunConfig, load_config
from memr1.data.loading import load_dataset
from memr1.data.stored import write_dataset
from memr1.data.validation import validate_dataset
from memr1.errors import WorkerFailed
from memr1.records import write_json
from memr1.rl.checkpoints import newest_whole_checkpoint, read_metrics
from memr1.rl.launch import launch_training
from memr1.rl.prepare import write_manager_examples
from memr1.run_dir import RunDir, file_digest
from memr1.tiny.weights import agent_folder

pytestmark = pytest.mark.slow

SMALL = (
    "data.num_train=3",
    "data.num_validation=1",
    "data.num_test=1",
    "training.checkpoint_every=2",
    "training.memory_manager.num_steps=4",
    "training.micro_batch=64",
    "training.credit.kind=local_global",
    "training.credit.conversations_per_step=1",
    "training.credit.num_trajectories=3",
    "training.credit.num_rereads=2",
    "training.credit.curriculum=[[1, 3], [2, 9]]",
)


def prepared_run(root: Path, *overrides: str) -> tuple[RunDir, RunConfig]:
    """A run that has its data: nothing else is read."""
    run, config = RunDir(root), load_config("quickstart", [*SMALL, *overrides])
    write_json(run.config, config.model_dump(mode="json"))
    dataset, _ = validate_dataset(load_dataset(config.data, config.seed), run)
    write_dataset(run, dataset)
    return run, config


def weights_digest(run: RunDir) -> str:
    return file_digest(run.model("memory_manager") / "model.safetensors")


def test_single_turns_watch_the_sampler_and_choose_the_checkpoint(tmp_path: Path) -> None:
    run, config = prepared_run(tmp_path, "training.memory_manager.num_steps=2", "bank.kind=in_memory")
    build_training_banks(run, config, tmp_path / "vectors", lambda *_: None)
    write_manager_examples(run, config, build_embedder(None))
    summary = launch_training(run, config, "memory_manager", run.logs / "train.log")
    first, last = read_metrics(run.checkpoints("memory_manager") / "metrics.jsonl")
    assert first["sampler_gap"] < 1e-4 and last["sampler_gap"] < 1e-4
    assert summary.served_step == 2 and summary.validation_reward == pytest.approx(last["validation_reward"], abs=1e-6)


class Killed(Exception):
    """Stands for a cancelled flow."""


def test_a_training_that_was_cancelled_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole, config = prepared_run(tmp_path / "whole")
    launch_training(whole, config, "memory_manager", whole.logs / "train.log")
    steps = read_metrics(whole.checkpoints("memory_manager") / "metrics.jsonl")
    assert [step["sessions"] for step in steps] == [1, 1, 1, 2]
    for name in ("reward", "kl", "turns", "completion_tokens", "parse_failures", "operations/ADD"):
        assert all(name in step for step in steps)
    assert any("local_reward" in step for step in steps)
    assert weights_digest(whole) != file_digest(agent_folder("memory_manager") / "model.safetensors")

    def cancel_after_three_steps(step: Mapping[str, float]) -> None:
        if step["step"] == 3:
            raise Killed

    resumed, config = prepared_run(tmp_path / "resumed")
    with pytest.raises(Killed):
        launch_training(resumed, config, "memory_manager", resumed.logs / "train.log", cancel_after_three_steps)
    checkpoint = newest_whole_checkpoint(resumed.checkpoints("memory_manager"))
    assert checkpoint is not None and checkpoint.name == "checkpoint-2"
    launch_training(resumed, config, "memory_manager", resumed.logs / "train.log")
    figures = [
        [{key: value for key, value in step.items() if key != "seconds"} for step in read_metrics(path)]
        for path in (run.checkpoints("memory_manager") / "metrics.jsonl" for run in (whole, resumed))
    ]
    assert figures[0] == figures[1]
    assert weights_digest(resumed) == weights_digest(whole)


@pytest.mark.parametrize("override", ["training.deepspeed=zero3", "training.lora.rank=4"])
def test_it_trains_sharded_weights_and_adapters(tmp_path: Path, override: str) -> None:
    # A micro-batch of 8 makes passes that hold nothing but padding on one rank.
    options = (override, "training.memory_manager.num_steps=2", "training.micro_batch=8")
    run, config = prepared_run(tmp_path, *options)
    assert launch_training(run, config, "memory_manager", run.logs / "train.log").num_steps == 2


def test_a_curriculum_that_asks_nothing_is_refused_before_the_first_step(tmp_path: Path) -> None:
    run, config = prepared_run(tmp_path, "extraction.kind=turn")
    (run.questions).write_text("", encoding="utf-8")
    with pytest.raises(WorkerFailed, match="no question of the training split can be answered from the first 1 sess"):
        launch_training(run, config, "memory_manager", run.logs / "train.log")
