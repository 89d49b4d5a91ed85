"""What the loss makes of padding: nothing. In one process, on the shipped tiny Memory Manager."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig

from memr1.rl.credit.trainer import PADDING, Row, TrajectoryGrpo, pad_right
from memr1.rl.trainer import load_tokenizer
from memr1.tiny.weights import agent_folder
from tests.unit.rl.credit.test_trajectories import ScriptedGenerator, say_what_stands_there, task

ROWS: list[Row] = [
    ([5, 6, 7, 8], [9, 10], 0.5),
    ([5, 6, 7, 8], [11, 12, 13], -1.0),
    ([5, 6, 7, 8, 9, 10], [14], 2.0),
    ([21, 22, 23], [9, 10], 0.5),
]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryGrpo:
    folder = tmp_path_factory.mktemp("trainer")
    return TrajectoryGrpo(
        task=task(ScriptedGenerator(say_what_stands_there)),
        model=str(agent_folder("memory_manager")),
        reward_funcs=len,
        args=GRPOConfig(
            output_dir=str(folder),
            num_generations=4,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            beta=0.05,
            loss_type="grpo",
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            model_init_kwargs={"dtype": "float32"},
            report_to="none",
        ),
        train_dataset=Dataset.from_list([{"prompt": "step 0"}]),
        processing_class=load_tokenizer(Path(agent_folder("memory_manager"))),
    )


def loss_and_gradient(trainer: TrajectoryGrpo, num_padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [*ROWS, *[PADDING] * num_padding]
    batch = trainer._pad(rows) | {"rows_per_turn": torch.tensor(len(rows) / len(ROWS))}
    batch["ref_per_token_logps"] = batch["ref_per_token_logps"] - 0.3  # as if the policy had moved
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    gradients = [weights.grad.flatten() for weights in trainer.model.parameters() if weights.grad is not None]
    return loss.detach(), torch.cat(gradients)


def test_padding_changes_neither_the_loss_nor_a_gradient(trainer: TrajectoryGrpo) -> None:
    loss, gradient = loss_and_gradient(trainer, 0)
    padded_loss, padded_gradient = loss_and_gradient(trainer, 4)
    assert torch.allclose(loss, padded_loss, atol=1e-6)
    assert (gradient - padded_gradient).norm() / gradient.norm() < 1e-5


def test_a_pass_of_nothing_but_padding_teaches_nothing(trainer: TrajectoryGrpo) -> None:
    batch = trainer._pad([PADDING, PADDING]) | {"rows_per_turn": torch.tensor(2.0)}
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    assert float(loss) == 0
    gradients = [weights.grad for weights in trainer.model.parameters() if weights.grad is not None]
    assert gradients and all(not gradient.any() for gradient in gradients)


def test_a_step_gives_a_row_per_turn_and_as_many_rows_as_the_passes_need(trainer: TrajectoryGrpo) -> None:
    batch = trainer._generate_and_score_completions([])
    num_turns = trainer._metrics["train"]["turns"][-1]
    num_rows = len(batch["prompt_ids"])
    assert num_turns >= 12  # two trajectories of six turns, and the rereads
    assert num_rows % 2 == 0 and num_turns <= num_rows <= num_turns + 1
    assert float(batch["rows_per_turn"]) == pytest.approx(num_rows / num_turns)
    assert {len(values) for key, values in batch.items() if key != "rows_per_turn"} == {num_rows}
    assert int(batch["completion_mask"].any(1).sum()) == num_turns


def test_completions_are_padded_on_the_right() -> None:
    tokens, mask = pad_right([[7, 8], [9], []], torch.device("cpu"))
    assert tokens.tolist() == [[7, 8], [9, 0], [0, 0]]
    assert mask.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert pad_right([[], []], torch.device("cpu"))[0].shape == (2, 1)
