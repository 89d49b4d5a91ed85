"""Groups whose rewards are all equal are left out of the loss: what is left is the same loss, in fewer rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from memr1.rl.grpo import SharedPromptGrpo
from memr1.rl.zero_variance import VariedGrpo, choose_rows, rows_of_varied_groups, share_of_the_mean
from tests.builders import write_random_model

NAN = float("nan")
LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo")
Reward = Callable[..., list[float | None]]


def test_a_group_is_varied_when_two_of_its_rewards_differ() -> None:
    groups = [[1, 1, 1], [0, 1, 0], [1 / 3, 1 / 3, 1 / 3], [NAN, 1, 1], [NAN, 1, 0], [NAN, NAN, NAN]]
    rows = rows_of_varied_groups(torch.tensor(groups).flatten(), 3)
    assert rows.view(-1, 3).all(1).tolist() == [False, True, False, False, True, False]
    assert rows.view(-1, 3).any(1).tolist() == rows.view(-1, 3).all(1).tolist()


@given(st.lists(st.booleans(), min_size=1), st.data())
def test_every_varied_row_is_chosen_once_and_others_fill_up_in_their_order(
    flags: list[bool], data: st.DataObject
) -> None:
    num_rows = data.draw(st.integers(max(1, sum(flags)), len(flags)))
    rows = choose_rows(torch.tensor(flags), num_rows).tolist()
    assert len(rows) == num_rows and rows[: sum(flags)] == [place for place, flag in enumerate(flags) if flag]
    assert rows[sum(flags) :] == [place for place, flag in enumerate(flags) if not flag][: num_rows - sum(flags)]


@given(st.lists(st.integers(1, 6), min_size=2, max_size=8), st.data())
def test_the_mean_over_chosen_rows_becomes_the_mean_over_all(lengths: list[int], data: st.DataObject) -> None:
    mask = torch.tensor([[1] * length + [0] * (6 - length) for length in lengths])
    rows = torch.tensor(data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True)))
    values = torch.zeros(len(lengths))
    values[rows] = 1 + rows.float()  # a token's loss; zero in what is left out
    by_row = (values[rows].mean() * share_of_the_mean("grpo", mask, rows)).item()
    assert by_row == pytest.approx(values.mean().item())
    tokens = mask.sum(1)
    by_token = (values * tokens)[rows].sum() / tokens[rows].sum() * share_of_the_mean("bnpo", mask, rows)
    assert by_token.item() == pytest.approx(((values * tokens).sum() / tokens.sum()).item())


def trainer(kind: type[GRPOTrainer], folder: Path, reward: Reward, loss: str, beta: float = 0.0) -> Any:
    model = folder / "model"
    if not model.exists():
        write_random_model(model)
    return kind(
        model=str(model),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(folder / "run"),
            per_device_train_batch_size=12,
            num_generations=4,
            max_completion_length=6,
            temperature=1.0,
            beta=beta,
            loss_type=loss,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            seed=0,
        ),
        train_dataset=Dataset.from_list([{"prompt": text} for text in ("one", "another", "a third one")]),
        processing_class=AutoTokenizer.from_pretrained(str(model), padding_side="left"),
    )


def only_the_second_group_varies(completions: list[str], **_: object) -> list[float | None]:
    return [1.0] * 4 + [0.0, 1.0, 1.0, 0.5] + [0.0] * 4


def nothing_varies(completions: list[str], **_: object) -> list[float | None]:
    return [1.0] * 4 + [None] * 4 + [0.25] * 4


def loss_and_gradients(trainer: Any, batch: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train().zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    gradients = torch.cat([weights.grad.flatten() for weights in trainer.model.parameters()])
    return loss.item(), gradients


def rollouts(trainer: Any) -> Any:
    rows = [row for row in trainer.train_dataset for _ in range(4)]
    trainer.model.train()
    torch.manual_seed(0)
    return trainer._generate_and_score_completions(rows)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_a_kl_penalty_the_loss_and_its_gradients_are_the_same(tmp_path: Path, loss: str) -> None:
    stock = trainer(SharedPromptGrpo, tmp_path, only_the_second_group_varies, loss)
    ours = trainer(VariedGrpo, tmp_path, only_the_second_group_varies, loss)
    batch = rollouts(ours)
    assert batch["varied"].tolist() == [False] * 4 + [True] * 4 + [False] * 4
    stock_loss, stock_gradients = loss_and_gradients(stock, batch)
    seen = rows_run(ours)
    own_loss, own_gradients = loss_and_gradients(ours, batch)
    assert seen == [4]
    assert own_loss == pytest.approx(stock_loss, abs=1e-6)
    assert stock_gradients.norm() > 0
    assert (own_gradients - stock_gradients).norm() / stock_gradients.norm() < 1e-5


def test_when_no_group_varies_some_rows_still_run_so_that_every_rank_takes_part(tmp_path: Path) -> None:
    ours = trainer(VariedGrpo, tmp_path, nothing_varies, "grpo")
    batch = rollouts(ours)
    seen = rows_run(ours)
    loss, gradients = loss_and_gradients(ours, batch)
    assert seen == [3]  # one for each of the three groups
    assert (loss, gradients.abs().max().item()) == (0.0, 0.0)
    assert ours._metrics["train"]["entropy"][-1] > 0


def test_the_kl_penalty_of_groups_that_vary_weighs_as_it_does_beside_all_others(tmp_path: Path) -> None:
    ours = trainer(VariedGrpo, tmp_path, only_the_second_group_varies, "grpo", beta=0.1)
    batch = rollouts(ours)
    batch["ref_per_token_logps"] = batch["ref_per_token_logps"] - 0.5  # a policy that has moved
    batch["advantages"] = torch.zeros_like(batch["advantages"])  # nothing but the penalty
    own_loss, _ = loss_and_gradients(ours, batch)
    # each of 4 rows of 12: 0.1 * (exp(-0.5) + 0.5 - 1)
    assert own_loss == pytest.approx(4 / 12 * 0.1 * (0.6065307 - 0.5), rel=1e-4)


def rows_run(trainer: Any) -> list[int]:
    """How many rows TRL's own loss was given, call by call."""
    seen: list[int] = []
    compute = trainer._get_per_token_logps_and_entropies

    def count(model: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(input_ids))
        return compute(model, input_ids, *args, **kwargs)

    trainer._get_per_token_logps_and_entropies = count
    return seen
