"""Training for real: torchrun, DeepSpeed ZeRO-2 and TRL on the shipped tiny models, a few steps of each."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from safetensors import safe_open

from memr1.agents.generators import build_generator
from memr1.bank.embedding import build_embedder
from memr1.config import RunConfig
from memr1.data.stored import read_dataset
from memr1.errors import WorkerFailed
from memr1.records import read_jsonl
from memr1.rl.checkpoints import checkpoint_step, newest_whole_checkpoint, read_metrics, read_served
from memr1.rl.examples import ManagerExample
from memr1.rl.launch import launch_training
from memr1.rl.prepare import write_answer_examples
from memr1.run_dir import RunDir, file_digest
from memr1.tiny.weights import agent_folder
from tests.training_runs import prepared_run, ranks_of

pytestmark = pytest.mark.slow


def train_manager(
    run: RunDir, config: RunConfig, on_step: Callable[[Mapping[str, float]], None] = lambda _: None
) -> None:
    launch_training(run, config, "memory_manager", run.logs / "train.log", on_step)


def weights_digest(run: RunDir) -> str:
    return file_digest(run.model("memory_manager") / "model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunConfig]:
    run, config = prepared_run(tmp_path_factory.mktemp("trained"))
    train_manager(run, config)
    return run, config


def test_training_changes_the_weights_and_reports_every_step(trained: tuple[RunDir, RunConfig]) -> None:
    run, _ = trained
    steps = read_metrics(run.checkpoints("memory_manager") / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    for name in ("reward", "kl", "completion_tokens", "parse_failures", "operations/ADD", "zero_variance_groups"):
        assert all(name in step for step in steps)
    warm = file_digest(agent_folder("memory_manager") / "model.safetensors")
    assert weights_digest(run) != warm
    assert all(step["sampler_gap"] < 1e-4 for step in steps[:3])


def test_what_is_served_is_what_did_best_on_validation_conversations(trained: tuple[RunDir, RunConfig]) -> None:
    run, _ = trained
    held_out = list(read_jsonl(run.examples("memory_manager") / "validation_examples.jsonl", ManagerExample))
    assert held_out and all(example.questions for example in held_out)
    assert {example.scope for example in held_out} <= set(read_dataset(run).splits.validation)
    folder = run.checkpoints("memory_manager")
    scores = {step["step"]: step["validation_reward"] for step in read_metrics(folder / "metrics.jsonl")[1::2]}
    served = read_served(folder)
    assert list(scores) == [2, 4]
    assert served.step == max(scores, key=lambda step: (scores[step], step))
    assert served.validation_reward == pytest.approx(scores[served.step], abs=1e-6)
    assert weights_digest(run) == file_digest(folder / f"checkpoint-{served.step}" / "model.safetensors")


def test_a_rehearsal_of_memory_leaves_training_as_it_was(trained: tuple[RunDir, RunConfig], tmp_path: Path) -> None:
    run, config = prepared_run(tmp_path, "training.guards.memory_preflight=false")
    train_manager(run, config)
    assert weights_digest(run) == weights_digest(trained[0])


def test_it_does_so_where_every_process_holds_a_part_of_the_weights(tmp_path: Path) -> None:
    sharded = ("training.deepspeed=zero3", "training.memory_manager.num_steps=2")
    digests = set()
    for name, options in (("with", ()), ("without", ("training.guards.memory_preflight=false",))):
        run, config = prepared_run(tmp_path / name, *sharded, *options)
        train_manager(run, config)
        told = (run.logs / "train.log").read_text(encoding="utf-8").count("memory preflight: example")
        assert told == (2 if name == "with" else 0)
        digests.add(weights_digest(run))
    assert len(digests) == 1


def test_the_answer_agent_trains_on_banks_of_the_trained_manager(trained: tuple[RunDir, RunConfig]) -> None:
    run, config = trained
    assert write_answer_examples(run, config, build_embedder(None)) > 0
    summary = launch_training(run, config, "answer_agent", run.logs / "train.log")
    assert summary.num_steps == 2
    generator = build_generator(config.answer_agent.generator, "answer_agent", run.model("answer_agent"))
    assert generator.sample_texts(["memories:\n\nquestion:\nWhere does Ann live?\nanswer:"], max_new_tokens=32)[0]


class Killed(Exception):
    """Stands for a cancelled flow."""


def test_a_cancelled_training_ends_every_rank_and_resumes_to_the_same_weights(
    trained: tuple[RunDir, RunConfig], tmp_path: Path
) -> None:
    run, config = prepared_run(tmp_path / "cancelled")

    def cancel_after_three_steps(step: Mapping[str, float]) -> None:
        if step["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train_manager(run, config, cancel_after_three_steps)
    assert not ranks_of(run)
    checkpoint = newest_whole_checkpoint(run.checkpoints("memory_manager"))
    assert checkpoint is not None and checkpoint.name == "checkpoint-2"
    shown: list[Mapping[str, float]] = []  # from the first step on: the killed attempt may not have passed it on
    train_manager(run, config, shown.append)
    assert shown == read_metrics(run.checkpoints("memory_manager") / "metrics.jsonl")
    assert [step["step"] for step in shown] == [1, 2, 3, 4]
    assert weights_digest(run) == weights_digest(trained[0])
    served = [read_served(item.checkpoints("memory_manager")) for item in (run, trained[0])]
    assert served[0] == served[1]


def test_ppo_trains_a_policy_without_its_critic_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    options = ("training.algorithm=ppo", "training.critic_learning_rate=1e-3", "training.memory_manager.num_steps=8")
    whole, config = prepared_run(tmp_path / "whole", *options)
    train_manager(whole, config)
    steps = read_metrics(whole.checkpoints("memory_manager") / "metrics.jsonl")
    rollouts = [step for step in steps if "reward" in step]
    assert [step["step"] for step in rollouts] == [1, 3, 5, 7]  # the rollouts of a step serve two passes
    assert all("value_loss" in step and "explained_variance" in step for step in rollouts)
    assert [step["step"] for step in steps if "validation_reward" in step] == [2, 4, 6, 8]
    with safe_open(whole.model("memory_manager") / "model.safetensors", "pt") as weights:
        assert "value_head" not in " ".join(weights.keys())
    assert weights_digest(whole) != file_digest(agent_folder("memory_manager") / "model.safetensors")

    def cancel_in_the_middle(step: Mapping[str, float]) -> None:
        if step["step"] == 3:
            raise Killed

    resumed, config = prepared_run(tmp_path / "resumed", *options)
    with pytest.raises(Killed):
        train_manager(resumed, config, cancel_in_the_middle)
    checkpoint = newest_whole_checkpoint(resumed.checkpoints("memory_manager"))
    assert checkpoint is not None and checkpoint_step(checkpoint) < 8
    train_manager(resumed, config)
    assert weights_digest(resumed) == weights_digest(whole)
    assert read_served(resumed.checkpoints("memory_manager")) == read_served(whole.checkpoints("memory_manager"))


def test_lora_trains_an_adapter_that_the_generator_loads(tmp_path: Path) -> None:
    run, config = prepared_run(tmp_path, "training.lora.rank=4", "training.memory_manager.num_steps=2")
    train_manager(run, config)
    folder = run.model("memory_manager")
    assert (folder / "adapter_config.json").exists() and not (folder / "model.safetensors").exists()
    generator = build_generator(config.memory_manager.generator, "memory_manager", folder)
    assert generator.sample_texts(["memories:\n\nturn:\nAnn: I live in Rome.\noperations:"], max_new_tokens=48)[0]


def test_a_failing_worker_is_an_error_with_its_own_words_and_its_log(tmp_path: Path) -> None:
    run, config = prepared_run(tmp_path)
    (run.examples("memory_manager") / "examples.jsonl").write_text("{broken\n", encoding="utf-8")
    with pytest.raises(WorkerFailed, match=r"examples\.jsonl:1") as failure:
        train_manager(run, config)
    assert str(run.logs / "train.log") in str(failure.value)
