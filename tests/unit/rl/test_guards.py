"""Each guard sees the fault that it is there for, names it, and lets a healthy run pass."""

from collections.abc import Mapping, Sequence

import pytest

from memr1.errors import TrainingError
from memr1.rl.guards import StepJudge, check_lengths, refuse_nan
from memr1.training_options import GuardConfig

HEALTHY = {
    "reward": 0.5, "loss": 0.01, "gradient_norm": 0.3, "kl": 0.02, "entropy": 0.05, "parse_failures": 0.01,
    "zero_variance_groups": 0.5,
}  # fmt: skip
CONSTANT = {**HEALTHY, "zero_variance_groups": 1.0, "entropy": 0.0}


def first_fault(steps: Sequence[Mapping[str, float]]) -> tuple[int, str] | None:
    judge = StepJudge(GuardConfig(patience=3))
    for number, step in enumerate(steps, 1):
        fault = judge.find_fault(step)
        if fault is not None:
            return number, fault
    return None


def test_a_healthy_run_passes() -> None:
    nothing_asked = {**HEALTHY, "reward": float("nan")}
    assert first_fault([nothing_asked, *[HEALTHY] * 50]) is None


@pytest.mark.parametrize("name", ["loss", "gradient_norm", "kl"])
def test_what_is_not_a_number_stops_at_once_and_is_named(name: str) -> None:
    number, fault = first_fault([HEALTHY, {**HEALTHY, name: float("nan")}]) or (0, "")
    assert number == 2 and fault.startswith(f"{name} not a number")


def test_an_exploding_divergence_stops_at_once() -> None:
    number, fault = first_fault([HEALTHY, {**HEALTHY, "kl": 7.5}]) or (0, "")
    assert number == 2 and "7.5 nats" in fault and "max_kl" in fault


def test_unreadable_output_stops_after_some_steps_in_a_row() -> None:
    unread = {**HEALTHY, "parse_failures": 1.0}
    assert first_fault([unread, unread, HEALTHY, unread, unread]) is None
    number, fault = first_fault([HEALTHY, unread, unread, unread]) or (0, "")
    assert number == 4 and "cannot be read" in fault


def test_a_constant_policy_stops_unless_it_does_better_than_at_the_start() -> None:
    number, fault = first_fault([HEALTHY, CONSTANT, CONSTANT, CONSTANT]) or (0, "")
    assert number == 4 and "same completion" in fault
    assert first_fault([HEALTHY, *[{**CONSTANT, "reward": 0.9}] * 20]) is None


def test_the_longest_example_is_measured_before_the_first_step() -> None:
    examples = [{"id": "short", "prompt": "a b"}, {"id": "long", "prompt": "a b c d e f"}]
    check_lengths(examples, lambda text: len(text.split()), max_new_tokens=4, room=10)
    with pytest.raises(TrainingError, match=r"example long: a prompt of 6 tokens and 5 new ones .* model's 10"):
        check_lengths(examples, lambda text: len(text.split()), max_new_tokens=5, room=10)


def test_a_reward_that_is_not_a_number_names_its_example() -> None:
    def reward(completions: Sequence[str], example_id: Sequence[str], **_: object) -> list[float | None]:
        return [None, 0.5, float("nan")][: len(completions)]

    checked = refuse_nan(reward)
    assert checked(["x", "y"], example_id=["a", "b"]) == [None, 0.5]
    with pytest.raises(TrainingError, match="example c is not a number"):
        checked(["x", "y", "z"], example_id=["a", "b", "c"])
