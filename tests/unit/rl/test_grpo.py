"""The batches of a step: the same rows, rollout groups kept together."""

from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from trl.trainer.utils import add_fused_lm_head

from memr1.rl.grpo import SharedPromptGrpo, group_rows
from memr1.rl.shared_prefix import share_prompts
from tests.builders import random_qwen2


def batches_of(prompts: list[int], num_batches: int) -> list[dict[str, object]]:
    size = len(prompts) // num_batches
    ids, places = torch.tensor(prompts)[:, None].repeat(1, 3), torch.arange(len(prompts))
    return [
        {
            "prompt_ids": ids[first : first + size],
            "place": places[first : first + size],
            "words": [f"row {place}" for place in range(first, first + size)],
            "num_items_in_batch": torch.tensor(7),
            "nothing": None,
        }
        for first in range(0, len(prompts), size)
    ]


def test_micro_batches_hold_whole_groups() -> None:
    grouped = group_rows(batches_of([5, 3, 5, 3, 3, 5], 2))
    assert [batch["prompt_ids"][:, 0].tolist() for batch in grouped] == [[3, 3, 3], [5, 5, 5]]
    assert [batch["place"].tolist() for batch in grouped] == [[1, 3, 4], [0, 2, 5]]
    assert grouped[0]["words"] == ["row 1", "row 3", "row 4"]
    assert int(grouped[1]["num_items_in_batch"]) == 7 and grouped[1]["nothing"] is None


@given(st.lists(st.integers(0, 3), min_size=12, max_size=12), st.sampled_from([1, 2, 3, 4]))
def test_no_row_is_lost_doubled_or_torn_apart(prompts: list[int], num_batches: int) -> None:
    grouped = group_rows(batches_of(prompts, num_batches))
    assert [len(batch["place"]) for batch in grouped] == [12 // num_batches] * num_batches
    places = [int(place) for batch in grouped for place in batch["place"]]
    assert sorted(places) == list(range(12))
    assert [int(row[0]) for batch in grouped for row in batch["prompt_ids"]] == [prompts[place] for place in places]
    assert [word for batch in grouped for word in batch["words"]] == [f"row {place}" for place in places]


class CountedPasses(torch.nn.Module):
    """A model that counts how often it is run, and on how many rows."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.rows = model, []

    def forward(self, **inputs: Any) -> Any:
        self.rows.append(len(inputs["input_ids"]))
        return self.model(**inputs)


def test_equal_rows_run_once_and_save_no_pass_that_other_processes_make() -> None:
    model = random_qwen2(60)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    share_prompts(model)
    counted = CountedPasses(model)
    trainer = object.__new__(SharedPromptGrpo)
    trainer.accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    rows = torch.randint(2, 60, (8, 9))
    rows[1:4] = rows[0]  # the first of two batches holds one and the same row
    found, _, _ = trainer._get_per_token_logps_and_entropies(counted, rows, torch.ones_like(rows), 4, batch_size=4)
    assert counted.rows == [1, 4]  # under ZeRO-3 another process, without equal rows, makes two passes as well
    alone, _, _ = trainer._get_per_token_logps_and_entropies(counted, rows[5:6], torch.ones_like(rows[5:6]), 4)
    assert torch.allclose(found[5], alone[0], atol=1e-5) and torch.equal(found[0], found[3])


def test_a_completions_numbers_follow_from_seed_step_call_and_place_alone() -> None:
    def draw(num_rows: int, process: int = 0, seed: int = 5, step: int = 3, call: int = 0) -> list[list[float]]:
        trainer = object.__new__(SharedPromptGrpo)
        trainer.args = SimpleNamespace(seed=seed, max_completion_length=6)
        trainer.state = SimpleNamespace(global_step=step)
        trainer.accelerator = SimpleNamespace(process_index=process)
        return trainer._draws(num_rows, call).tolist()

    alone = draw(4)
    assert alone == [*draw(2), *draw(2, process=1)] and len({tuple(row) for row in alone}) == 4
    assert all(len(row) == 6 and min(row) >= 0 and max(row) < 1 for row in alone)
    for others in (draw(4, seed=6), draw(4, step=4), draw(4, call=1)):
        assert not {tuple(row) for row in others} & {tuple(row) for row in alone}
