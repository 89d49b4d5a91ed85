"""A training in which a fault is planted stops by that name, and its last good checkpoint stays what it was.

The faults are planted in a whole trainer as a worker builds it: from its second step of rollouts on, or in what it
starts from.
"""

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from memr1.agents.transformers_generator import load_model
from memr1.errors import TrainingError
from memr1.rl.checkpoints import checkpoint_step, newest_whole_checkpoint
from tests.builders import write_random_model
from tests.end_to_end.ways import Way, build_way, run_ranks

pytestmark = pytest.mark.slow


class FromStep(TrainerCallback):
    """Plants something at the beginning of every step behind the first `num_steps` optimiser steps."""

    def __init__(self, num_steps: int, plant: Callable[[], object]) -> None:
        self._num_steps, self._plant = num_steps, plant

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self._num_steps:
            self._plant()


def spoil_gradient(trainer: Any) -> None:
    weights = next(trainer.model.parameters())
    trainer.add_callback(FromStep(2, lambda: weights.register_hook(lambda gradient: gradient * math.nan)))


def spoil_loss(trainer: Any) -> None:
    compute = trainer._compute_loss

    def plant() -> None:
        trainer._compute_loss = lambda *inputs: compute(*inputs) * math.nan

    trainer.add_callback(FromStep(2, plant))


def set_learning_rate(trainer: Any, rate: float, num_steps: int) -> None:
    def plant() -> None:
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate

    trainer.add_callback(FromStep(num_steps, plant))


def make_unreadable(trainer: Any) -> None:
    [reward] = trainer.reward_funcs

    def unreadable(*inputs: Any, log_metric: Any, **columns: Any) -> Any:
        log_metric("parse_failures", 1.0)
        return reward(*inputs, log_metric=log_metric, **columns)

    trainer.reward_funcs = [unreadable]


def hold_still(trainer: Any) -> None:
    """The policy stays as it is, and what it says is worth the same every time."""
    set_learning_rate(trainer, rate=0.0, num_steps=0)
    trainer.reward_funcs = [lambda completions, **_: [0.5] * len(completions)]


FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "gradient": (spoil_gradient, "gradient_norm not a number"),
    "loss": (spoil_loss, "loss, gradient_norm not a number"),
    "divergence": (partial(set_learning_rate, rate=10.0, num_steps=1), "nats per token from where it started"),
    "constant": (hold_still, "every rollout of a prompt is the same completion, 2 steps in a row"),
    "unreadable": (make_unreadable, "100% of the completions cannot be read, 2 steps in a row"),
}


def train_until_fault(plant: Callable[[Any], None], way: Way, model: Path, folder: Path) -> None:
    """What a rank does: the message of the fault goes into a file."""
    trainer = build_way(way, model, folder)
    plant(trainer)
    try:
        trainer.train()
    except TrainingError as error:
        (folder / "fault.txt").write_text(str(error))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("guards") / "model")


@pytest.fixture(scope="module")
def sure_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model so sure of itself that it says one thing only."""
    folder = tmp_path_factory.mktemp("guards") / "sure"
    shutil.copytree(model, folder)
    network = load_model(model)
    with torch.no_grad():
        network.get_output_embeddings().weight.mul_(1e4)
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("deepspeed", [None, "zero2"], ids=["torch", "zero2"])
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_stops_the_training_by_its_name(
    model: Path, sure_model: Path, tmp_path: Path, fault: str, algorithm: str, deepspeed: str | None
) -> None:
    plant, message = FAULTS[fault]
    way = Way(algorithm, deepspeed, num_steps=12, checkpoint_every=1)
    run_ranks(1, partial(train_until_fault, plant), way, sure_model if fault == "constant" else model, tmp_path)
    said = (tmp_path / "fault.txt").read_text()
    assert message in said and "The last checkpoint is kept" in said
    stopped_at = int(said.partition("at step ")[2].partition(":")[0])
    kept = newest_whole_checkpoint(tmp_path)
    assert kept is not None and checkpoint_step(kept) < stopped_at
