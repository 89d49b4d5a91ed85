"""The batches of a step: the same rows, rollout groups kept together."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from memr1.rl.grpo import group_rows


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
