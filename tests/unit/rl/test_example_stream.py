"""The order of the examples of a training, and what it does not depend on."""

from collections import Counter

from memr1.rl.example_stream import ExampleStream

PROMPTS, GROUP = 4, 3


def rows_of(num_examples: int, num_batches: int, num_passes: int = 1, seed: int = 5) -> list[int]:
    stream = ExampleStream(
        num_examples,
        num_batches=num_batches,
        prompts_per_batch=PROMPTS,
        group_size=GROUP,
        num_passes=num_passes,
        seed=seed,
    )
    rows = list(stream)
    assert rows == list(stream) and len(rows) == len(stream)
    return rows


def test_a_batch_has_whole_rollout_groups_and_every_pass_over_it_the_same_rows() -> None:
    rows = rows_of(10, num_batches=9, num_passes=2)
    batches = [rows[start : start + PROMPTS * GROUP] for start in range(0, len(rows), PROMPTS * GROUP)]
    assert len(batches) == 9 and batches[0:8:2] == batches[1:8:2] and batches[0] != batches[2]
    for batch in batches:
        assert batch == [example for example in batch[::GROUP] for _ in range(GROUP)]


def test_every_example_comes_once_before_any_comes_again() -> None:
    shown = rows_of(10, num_batches=5)[::GROUP]
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
    assert shown[:10] != shown[10:]
    assert rows_of(10, num_batches=5, seed=6)[::GROUP] != shown


def test_a_longer_training_begins_as_a_shorter_one() -> None:
    assert rows_of(10, num_batches=9)[: 5 * PROMPTS * GROUP] == rows_of(10, num_batches=5)


def test_fewer_examples_than_a_batch_asks_for_come_more_than_once_in_it() -> None:
    assert Counter(rows_of(2, num_batches=1)) == {0: 2 * GROUP, 1: 2 * GROUP}
