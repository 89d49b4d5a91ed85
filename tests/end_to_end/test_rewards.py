"""Training for real on rewards other than the default: extra ones, a judge, and groups without variance left out."""

from pathlib import Path

import pytest

from memr1.config import RunConfig
from memr1.errors import WorkerFailed
from memr1.rl.checkpoints import newest_whole_checkpoint, read_metrics
from memr1.rl.launch import launch_training
from memr1.run_dir import RunDir, file_digest
from tests.endpoint_server import Handler, completion, serving
from tests.training_runs import prepared_run

pytestmark = pytest.mark.slow

EXTRA = (
    "training.extra_rewards.format=0.1",
    "training.extra_rewards.memory_size=0.3",
    "training.extra_rewards.evidence_kept=0.2",
)
JUDGED = (
    "training.reward=judge",
    "training.judge.kind=endpoint",
    "training.judge.model=m",
    "training.judge.num_retries=0",
    "training.max_validation_examples=0",  # whose answers are judged too, but counted in no step
    "training.memory_manager.num_steps=2",
    "training.num_processes=1",
)


def train_manager(run: RunDir, config: RunConfig) -> None:
    launch_training(run, config, "memory_manager", run.logs / "train.log")


def weights_digest(run: RunDir) -> str:
    return file_digest(run.model("memory_manager") / "model.safetensors")


def assert_reward_is_the_weighted_sum(run: RunDir) -> None:
    steps = read_metrics(run.checkpoints("memory_manager") / "metrics.jsonl")
    rollouts = [step for step in steps if "reward" in step]
    assert rollouts
    for step in rollouts:
        extras = 0.1 * step["reward/format"] + 0.3 * step["reward/memory_size"] + 0.2 * step["reward/evidence_kept"]
        assert step["reward"] == pytest.approx(step["reward/answers"] + extras, abs=1e-4)
        assert step["reward/evidence_kept"] > 0


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_extra_rewards_are_part_of_the_reward_and_columns_of_their_own(tmp_path: Path, algorithm: str) -> None:
    options = (f"training.algorithm={algorithm}", "training.memory_manager.num_steps=2", "training.num_processes=1")
    run, config = prepared_run(tmp_path, *EXTRA, *options)
    train_manager(run, config)
    assert_reward_is_the_weighted_sum(run)


def test_ranks_that_skip_groups_stay_in_step_and_end_in_the_same_weights_again(tmp_path: Path) -> None:
    options = ("training.skip_zero_variance=true", "training.memory_manager.num_steps=3", "training.micro_batch=4")
    runs = [prepared_run(tmp_path / name, *options) for name in ("one", "two")]
    for run, config in runs:
        train_manager(run, config)
    steps = read_metrics(runs[0][0].checkpoints("memory_manager") / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert any(step["zero_variance_groups"] > 0 for step in steps)
    assert weights_digest(runs[0][0]) == weights_digest(runs[1][0])


def test_a_judge_scores_the_answers_and_a_repeated_run_needs_it_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decide_by_length(handler: Handler, prompt: str, attempt: int) -> bool:
        handler.reply(200, completion("RIGHT" if len(prompt) % 2 else "WRONG"))
        return True

    monkeypatch.setenv("MEMR1_HOME", str(tmp_path / "home"))
    with serving(decide_by_length) as server:
        monkeypatch.setenv("MEMR1_ENDPOINT_URL", server.url)
        first, config = prepared_run(tmp_path / "first", *JUDGED)
        train_manager(first, config)
    steps = read_metrics(first.checkpoints("memory_manager") / "metrics.jsonl")
    assert sum(step["judge/asked"] for step in steps) == sum(server.asked.values()) > 0
    assert set(server.asked.values()) == {1}
    assert all(step["judge/unreadable"] == 0 for step in steps)

    again, config = prepared_run(tmp_path / "again", *JUDGED)  # the server is gone
    train_manager(again, config)
    assert weights_digest(again) == weights_digest(first)

    # Further than before there are answers that nobody has judged.
    away, config = prepared_run(tmp_path / "away", *JUDGED, "training.memory_manager.num_steps=40")
    with pytest.raises(WorkerFailed, match=r"no verdict, no reward: .*Is the server running.*checkpoint.*kept"):
        train_manager(away, config)
    assert newest_whole_checkpoint(away.checkpoints("memory_manager")) is not None
