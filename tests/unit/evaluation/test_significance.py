"""The paired bootstrap: hand-computed cases, and what must hold for any scores."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1.errors import EvaluationError
from memr1.evaluation.significance import MIN_CLUSTERS, paired_bootstrap

scores = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from("abcdefgh")), min_size=1, max_size=40)


def test_a_system_that_is_better_on_every_question_is_better_in_every_resample() -> None:
    clusters = [f"c{number % 6}" for number in range(12)]
    result = paired_bootstrap([1.0] * 12, [0.0] * 12, clusters, seed=1)
    assert (result.difference, result.low, result.high, result.probability) == (1.0, 1.0, 1.0, 1.0)
    assert (result.unit, result.num_units) == ("conversation", 6)


def test_equal_systems_are_never_better() -> None:
    result = paired_bootstrap([1.0, 0.0] * 5, [1.0, 0.0] * 5, list("abcdeabcde"), seed=1)
    assert (result.difference, result.probability) == (0.0, 0.0)


def test_the_share_of_resamples_is_the_probability_of_drawing_no_loss() -> None:
    # Six conversations, five won by 1 and one lost by 5: the mean gain of a draw is above 0 only when the lost one
    # is not drawn at all, which has probability (5/6)^6 = 0.335; drawn once, the sum is 5 - 5 = 0.
    result = paired_bootstrap([1.0] * 5 + [0.0], [0.0] * 5 + [5.0], list("abcdef"), seed=3, samples=40_000)
    assert result.difference == 0.0
    assert result.probability == pytest.approx((5 / 6) ** 6, abs=0.01)


def test_questions_of_one_conversation_do_not_count_as_independent() -> None:
    # 10 conversations of 20 equal questions: the interval is as wide as with one question each.
    gains = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, -1.0]
    once = paired_bootstrap(gains, [0.0] * 10, [f"c{n}" for n in range(10)], seed=5)
    repeated = [gain for gain in gains for _ in range(20)]
    often = paired_bootstrap(repeated, [0.0] * 200, [f"c{n}" for n in range(10) for _ in range(20)], seed=5)
    assert (often.low, often.high) == (once.low, once.high)


def test_a_conversation_weighs_as_much_as_it_has_questions() -> None:
    result = paired_bootstrap([1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 6, list("abbbcd"), seed=1)
    assert result.difference == pytest.approx(1 / 6)


def test_few_conversations_are_resampled_by_question_and_the_result_says_so() -> None:
    result = paired_bootstrap([1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], list("aabb"), seed=1)
    assert (result.unit, result.num_units) == ("question", 4)
    assert result.difference == 0.5


def test_the_same_seed_gives_the_same_numbers_however_many_questions_there_are() -> None:
    a = [float(number % 3 == 0) for number in range(3000)]
    b = [float(number % 4 == 0) for number in range(3000)]
    first = paired_bootstrap(a, b, ["only"] * 3000, seed=9, samples=500)
    assert first == paired_bootstrap(a, b, ["only"] * 3000, seed=9, samples=500)


@settings(max_examples=50, deadline=None)
@given(scores)
def test_swapping_the_systems_mirrors_the_interval(rows: list[tuple[float, float, str]]) -> None:
    a, b, clusters = ([row[column] for row in rows] for column in range(3))
    forward = paired_bootstrap(a, b, clusters, seed=2, samples=200)
    backward = paired_bootstrap(b, a, clusters, seed=2, samples=200)
    assert forward.difference == pytest.approx(-backward.difference)
    assert forward.low == pytest.approx(-backward.high, abs=1e-9)
    assert forward.low <= forward.high
    assert (forward.unit == "conversation") == (len(set(clusters)) >= MIN_CLUSTERS)


@pytest.mark.parametrize("a, b, clusters", [([], [], []), ([1.0], [1.0, 0.0], ["x"]), ([1.0], [0.0], [])])
def test_nothing_to_compare_is_an_error(a: list[float], b: list[float], clusters: list[str]) -> None:
    with pytest.raises(EvaluationError, match="cannot compare"):
        paired_bootstrap(a, b, clusters, seed=1)
