"""Any model of the Qwen2 and Llama families, from a local folder, through training and back into a generator."""

from pathlib import Path
from typing import Literal

import pytest

from memr1.agents.generators import build_generator
from memr1.config import load_config
from memr1.records import write_json
from memr1.rl.checkpoints import read_metrics
from memr1.rl.launch import launch_training
from tests.builders import write_chat_model
from tests.training_runs import SMALL, prepared_run

pytestmark = pytest.mark.slow

COMMON = (
    "training.gradient_checkpointing=true",
    "training.schedule=constant",
    "training.warmup_steps=2",
    "training.rollout.batch_size=6",
    "training.micro_batch=4",
    "training.memory_manager.num_steps=4",
    "training.memory_manager.learning_rate=1e-3",
    "memory_manager.max_new_tokens=8",
    "answer_agent.max_new_tokens=8",
)
WAYS = {
    "qwen2": ("training.num_processes=2", "training.deepspeed=zero3"),
    "llama": ("training.num_processes=1", "training.lora.rank=4", "training.max_prompt_tokens=1200"),
}


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_local_model_trains_and_is_loaded_again(family: Literal["qwen2", "llama"], tmp_path: Path) -> None:
    folder = write_chat_model(tmp_path / family, family)
    models = (f"{agent}.generator.model={folder}" for agent in ("memory_manager", "answer_agent"))
    run, _ = prepared_run(tmp_path / "run")  # a bank by the tiny Manager: gibberish would be refused
    config = load_config("quickstart", [*SMALL, *models, *COMMON, *WAYS[family]])
    write_json(run.config, config.model_dump(mode="json"))
    launch_training(run, config, "memory_manager", run.logs / "train.log")
    steps = read_metrics(run.checkpoints("memory_manager") / "metrics.jsonl")
    assert [step["learning_rate"] for step in steps] == pytest.approx([0.0, 5e-4, 1e-3, 1e-3])
    assert "prompts are not shared" not in (run.logs / "train.log").read_text()
    trained = build_generator(config.memory_manager.generator, "memory_manager", run.model("memory_manager"))
    assert len(trained.sample_texts(["turn:\nAnn: I live in Rome.\noperations:"], max_new_tokens=8)) == 1


def test_sharding_and_checkpointing_everything_takes_the_same_first_step(tmp_path: Path) -> None:
    shapes = {"plain": ("training.deepspeed=zero2",), "all": ("training.deepspeed=zero3", *COMMON[:1], COMMON[4])}
    first = {}
    for name, options in shapes.items():
        run, config = prepared_run(tmp_path / name, *options, "training.memory_manager.num_steps=1")
        launch_training(run, config, "memory_manager", run.logs / "train.log")
        first[name] = read_metrics(run.checkpoints("memory_manager") / "metrics.jsonl")[0]
    assert first["plain"]["gradient_norm"] > 0
    for figure in ("reward", "gradient_norm"):  # entropy is a mean over passes, which have other tokens here
        assert first["all"][figure] == pytest.approx(first["plain"][figure], rel=1e-3)
