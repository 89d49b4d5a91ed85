"""A policy that plays both roles: which reward scores which completion, and what the step tells about either role."""

from collections import defaultdict
from collections.abc import Sequence

import pytest

from memr1.rl.examples import AnswerExample
from memr1.rl.reward import LogMetric, score_by_text
from memr1.rl.rollout import AnswerReward, Completion
from memr1.rl.shared_policy import SharedReward, share_tasks
from memr1.rl.trainer import step_metrics
from memr1.training_options import ExtraRewards

NONE = ExtraRewards()


class LengthReward:
    """Scores a completion by its length, None where it is empty; tells how many were shouted."""

    __name__ = "answers"

    def __call__(
        self, completions: Sequence[Completion], example_id: Sequence[str], log_metric: LogMetric, **_: object
    ) -> list[float | None]:
        self.seen = list(example_id)
        log_metric("operations/ADD", sum(str(text).isupper() for text in completions) / len(completions))
        log_metric("parse_failures", 0.0)
        return [float(len(text)) or None for text in completions]


def answers(extra_rewards: ExtraRewards = NONE, **gold: str) -> AnswerReward:
    examples = [
        AnswerExample(id=key, prompt="p", question="?", answer=value, category=1, memories=())
        for key, value in gold.items()
    ]
    return AnswerReward(examples, score_by_text("exact_match"), extra_rewards)


@pytest.fixture
def told() -> dict[str, list[float]]:
    return defaultdict(list)


def test_each_completion_is_scored_by_the_reward_of_its_role(told: dict[str, list[float]]) -> None:
    manager = LengthReward()
    reward = SharedReward({"memory_manager": manager, "answer_agent": answers(q="Rome")})  # type: ignore[dict-item]
    scores = reward(
        ['{"answer":"Rome"}', "ABC", "", '{"answer":"Oslo"}', "what?"],
        ["answer_agent/q", "memory_manager/c/t1", "memory_manager/c/t2", "answer_agent/q", "answer_agent/q"],
        lambda name, value: told[name].append(value),
    )
    assert scores == [1.0, 3.0, None, 0.0, 0.0]
    assert manager.seen == ["c/t1", "c/t2"]
    assert told["memory_manager/reward"] == [3.0]  # what could not be scored counts for nothing
    assert told["answer_agent/reward"] == [1.0, 0.0, 0.0]


def test_a_metric_counts_once_for_every_completion_behind_it(told: dict[str, list[float]]) -> None:
    reward = SharedReward({"memory_manager": LengthReward(), "answer_agent": answers(q="Rome")})  # type: ignore[dict-item]
    ids = ["memory_manager/a", "memory_manager/b", "answer_agent/q"]
    reward(["A", "b", "what?"], ids, lambda name, value: told[name].append(value))
    assert told["memory_manager/operations/ADD"] == [0.5, 0.5]
    assert told["memory_manager/parse_failures"] == [0.0, 0.0]
    assert told["answer_agent/parse_failures"] == [1.0]
    assert told["parse_failures"] == [0.0, 0.0, 1.0]  # a third of all: what the guards look at


def test_a_completions_own_value_counts_once(told: dict[str, list[float]]) -> None:
    agent = answers(ExtraRewards(format=0.5), q="Rome")
    reward = SharedReward({"memory_manager": LengthReward(), "answer_agent": agent})  # type: ignore[dict-item]
    texts, ids = ['{"answer":"Rome"}', "what?", "A"], ["answer_agent/q", "answer_agent/q", "memory_manager/a"]
    assert reward(texts, ids, lambda name, value: told[name].append(value)) == [1.5, 0.0, 1.0]
    assert told["answer_agent/reward/format"] == [1.0, 0.0]


def test_a_batch_of_one_role_asks_the_other_reward_nothing(told: dict[str, list[float]]) -> None:
    manager = LengthReward()
    reward = SharedReward({"memory_manager": manager, "answer_agent": answers(q="Rome")})  # type: ignore[dict-item]
    assert reward(['{"answer":"Rome"}'], ["answer_agent/q"], lambda name, value: told[name].append(value)) == [1.0]
    assert not hasattr(manager, "seen")
    assert not any(name.startswith("memory_manager") for name in told)


def test_the_examples_of_both_roles_keep_apart_even_if_their_ids_are_equal() -> None:
    manager, agent = LengthReward(), answers(same="Rome")
    rows, held_out, _ = share_tasks(
        {
            "memory_manager": ([{"id": "same", "prompt": "turn"}], [], manager),  # type: ignore[dict-item]
            "answer_agent": ([{"id": "same", "prompt": "question"}], [{"id": "other", "prompt": "question"}], agent),
        }
    )
    assert held_out == [{"id": "answer_agent/other", "prompt": "question"}]
    assert rows == [
        {"id": "memory_manager/same", "prompt": "turn"},
        {"id": "answer_agent/same", "prompt": "question"},
    ]


def test_the_figures_of_a_role_reach_the_metrics_of_the_step() -> None:
    logs = {"reward": 0.5, "answer_agent/reward": 0.25, "memory_manager/operations/ADD": 1.0, "completions/max": 3.0}
    assert step_metrics(logs) == {"reward": 0.5, "answer_agent/reward": 0.25, "memory_manager/operations/ADD": 1.0}
