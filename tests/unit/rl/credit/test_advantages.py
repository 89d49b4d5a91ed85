"""Advantages, weights and figures of rollouts, against numbers computed by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memr1.rl.credit.advantages import ScoredRollout, compare_rollouts, pad_rows, step_figures, weigh_turns


def scored(group: str, reward: float | None, num_turns: int = 1, **fields: object) -> ScoredRollout:
    return ScoredRollout(group=group, is_reread="/" in group, reward=reward, num_turns=num_turns, **fields)  # type: ignore[arg-type]


def test_a_rollout_is_compared_with_its_own_group() -> None:
    rollouts = [scored("a", 1.0), scored("b", 0.9), scored("a", 0.0), scored("b", 0.7), scored("a", 0.5)]
    # a: mean 0.5, deviation 0.5 · b: mean 0.8, deviation 0.141421
    expected = [0.5 / 0.5001, 0.1 / 0.141521, -0.5 / 0.5001, -0.1 / 0.141521, 0.0]
    assert compare_rollouts(rollouts, scale=True) == pytest.approx(expected, rel=1e-5)
    assert compare_rollouts(rollouts, scale=False) == pytest.approx([0.5, 0.1, -0.5, -0.1, 0.0])


def test_a_rollout_about_which_nothing_was_asked_moves_nobody() -> None:
    rollouts = [scored("a", None), scored("a", 1.0), scored("a", 0.0), scored("b", None)]
    assert compare_rollouts(rollouts, scale=False) == [0.0, 0.5, -0.5, 0.0]


@given(st.floats(0, 1), st.integers(1, 9), st.booleans())
def test_equal_rollouts_have_no_advantage(reward: float, size: int, scale: bool) -> None:
    assert compare_rollouts([scored("a", reward)] * size, scale=scale) == [0.0] * size


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.25, 0.5, 1.0, None]))), st.booleans())
def test_the_advantages_of_a_group_sum_to_nothing(drawn: list[tuple[str, float | None]], scale: bool) -> None:
    rollouts = [scored(group, reward) for group, reward in drawn]
    advantages = compare_rollouts(rollouts, scale=scale)
    for group in "abc":
        assert math.isclose(
            sum(a for a, item in zip(advantages, rollouts, strict=True) if item.group == group), 0, abs_tol=1e-9
        )


def test_a_long_rollout_weighs_as_much_as_a_short_one() -> None:
    # 12 turns, 3 rollouts that have any: 4 for each.
    assert weigh_turns([8, 1, 0, 3]) == pytest.approx([0.5, 4.0, 0.0, 4 / 3])


@given(st.lists(st.integers(0, 50), min_size=1).filter(any))
def test_weights_share_the_turns_equally(num_turns: list[int]) -> None:
    weighed = [weight * count for weight, count in zip(weigh_turns(num_turns), num_turns, strict=True)]
    assert sum(weighed) == pytest.approx(sum(num_turns))
    assert len({round(share, 6) for share in weighed if share}) == 1


def test_every_rank_gets_as_many_rows_in_equal_passes() -> None:
    assert [pad_rows(*case) for case in (([7, 5], 3), ([6, 0], 3), ([1], 4), ([0, 0], 2))] == [9, 6, 4, 2]


@given(st.lists(st.integers(0, 99), min_size=1), st.integers(1, 9))
def test_padding_is_never_more_than_the_passes_need(num_rows: list[int], num_passes: int) -> None:
    padded = pad_rows(num_rows, num_passes)
    assert padded % num_passes == 0 and padded > 0
    assert max(num_rows) <= padded < max(1, max(num_rows)) + num_passes


def test_figures_count_turns_over_all_rollouts() -> None:
    figures = step_figures(
        [
            scored("a", 0.5, 3, num_tokens=30, num_failures=1, operations={"ADD": 2}),
            scored("a", 0.7, 3, num_tokens=36, num_cut_off=1, operations={"ADD": 1, "UPDATE": 2}),
            scored("a/D1", 1.0, 1, num_tokens=7, operations={"DELETE": 1}),
            scored("a/D1", 1.0, 1, num_tokens=7),
        ]
    )
    assert figures == pytest.approx(
        {
            "reward": 0.6, "reward_std": 0.2 / 2**0.5, "local_reward": 1.0, "frac_reward_zero_std": 0.5, "turns": 8,
            "completions/mean_length": 10.0, "completions/clipped_ratio": 1 / 8, "parse_failures": 1 / 8,
            "operations/ADD": 3 / 8, "operations/UPDATE": 2 / 8, "operations/DELETE": 1 / 8, "operations/NOOP": 0.0,
        }
    )  # fmt: skip
