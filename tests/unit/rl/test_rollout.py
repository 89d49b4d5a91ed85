"""The reward of a completion, from its text to a number, with a scripted Answer Agent."""

import json
from collections.abc import Sequence
from datetime import datetime

import pytest

from memr1.agents.answer_agent import AnswerAgent
from memr1.agents.generation import ScriptedGenerator
from memr1.agents.judge import AnsweredQuestion
from memr1.bank.embedding import HashEmbedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import Source
from memr1.config import RetrievalConfig
from memr1.rl.examples import AnswerExample, LinkedQuestion, ManagerExample
from memr1.rl.reward import LogMetric, score_by_text
from memr1.rl.rollout import AnswerReward, ManagerReward
from memr1.training_options import ExtraRewards

NOON = datetime(2024, 5, 1, 12)


def entry(identity: str, text: str, turn_id: str) -> MemoryEntry:
    return MemoryEntry(id=identity, scope="c", speaker="Ann", text=text, time=NOON, turn_ids=(turn_id,))


BANK = [entry("1", "Ann lives in Lisbon", "t1"), entry("2", "Ann bakes bread", "t2")]
HOME = LinkedQuestion(id="home", text="Where does Ann live?", answer="Rome", evidence=("t3",))
TRADE = LinkedQuestion(id="trade", text="What does Ann bake?", answer="bread", evidence=("t2",))
EXAMPLE = ManagerExample(
    id="c/t3",
    prompt="p",
    scope="c",
    source=Source(turn_id="t3", speaker="Ann", time=NOON, policy="rollout"),
    bank_sequence=2,
    turn_words=4,
    words_read=10,
    shown=("1", "2"),
    questions=(HOME,),
    retention=(TRADE,),
)


NONE = ExtraRewards()


def answer_from_the_memory_about_it(prompt: str) -> str:
    """The last word of the first memory that is about the question's subject."""
    shown, question = prompt.split("question:")
    texts = [json.loads(line)["text"] for line in shown.splitlines() if line.startswith("{")]
    about = [text for text in texts if ("lives" if "live" in question else "bakes") in text]
    return json.dumps({"memories": [1], "answer": about[0].split()[-1] if about else "none"})


class Metrics(dict[str, float]):
    """The mean of every value logged under a name, as TRL takes it."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def log(self, name: str, value: float) -> None:
        values = self._values.setdefault(name, [])
        values.append(value)
        self[name] = sum(values) / len(values)


def manager_reward(
    completions: Sequence[str], extra_rewards: ExtraRewards = NONE, example: ManagerExample = EXAMPLE
) -> tuple[list[float | None], Metrics, int]:
    generator = ScriptedGenerator(answer_from_the_memory_about_it)
    metrics = Metrics()
    reward = ManagerReward(
        [example],
        {example.id: BANK},
        {"c": ("Ann", "Bob")},
        AnswerAgent(generator, "compact", 32),
        HashEmbedder(),
        RetrievalConfig(),
        score_by_text("exact_match"),
        extra_rewards,
        max_retention=4,
    )
    rewards = reward(completions, [example.id] * len(completions), metrics.log)
    return rewards, metrics, len(generator.prompts)


def operations(*items: dict[str, object]) -> str:
    return json.dumps({"operations": items})


UPDATE = operations({"op": "UPDATE", "id": 1, "text": "Ann lives in Rome"})
OVERWRITE = operations({"op": "UPDATE", "id": 2, "text": "Ann lives in Rome"})
NOTHING = operations()


def test_an_operation_earns_what_the_frozen_agent_then_answers_right() -> None:
    rewards, metrics, _ = manager_reward([UPDATE, NOTHING])
    assert rewards == [1.0, 0.0]
    assert metrics == {
        "parse_failures": 0.0,
        "operations/ADD": 0.0,
        "operations/UPDATE": 0.5,
        "operations/DELETE": 0.0,
        "operations/NOOP": 0.5,
    }


def test_overwriting_a_neighbour_costs_the_question_about_it_for_the_whole_group() -> None:
    # Altered by one rollout of the group, entry 2 is asked about in all: the right UPDATE keeps it, OVERWRITE loses it.
    rewards, _, _ = manager_reward([UPDATE, OVERWRITE])
    # After OVERWRITE the new home is found, but nothing tells any more what she bakes: 1 of 2.
    assert rewards == [1.0, 0.5]


def test_equal_outcomes_are_answered_once() -> None:
    _, _, num_prompts = manager_reward([UPDATE] * 6 + [NOTHING] * 2)
    assert num_prompts == 2


def test_output_that_does_not_parse_earns_nothing_and_is_counted() -> None:
    rewards, metrics, _ = manager_reward([UPDATE, "I would add this."])
    assert rewards == [1.0, 0.0]
    assert metrics["parse_failures"] == 0.5


def test_an_operation_on_an_entry_that_was_not_shown_does_not_parse() -> None:
    rewards, metrics, _ = manager_reward([operations({"op": "DELETE", "id": 9})])
    assert (rewards, metrics["parse_failures"]) == ([0.0], 1.0)


def test_a_chat_completion_is_read_like_a_plain_one() -> None:
    chat = [{"role": "assistant", "content": UPDATE}]
    rewards, _, _ = manager_reward([chat])  # type: ignore[list-item]
    assert rewards == [1.0]


CAR = AnswerExample(id="q", prompt="p", question="What does she drive?", answer="a red car", category=1, memories=())


def test_the_answer_agent_earns_exact_match_or_token_f1() -> None:
    texts = [json.dumps({"memories": [], "answer": answer}) for answer in ("A red car ", "red car", "boat")]
    log = Metrics().log
    exact = AnswerReward([CAR], score_by_text("exact_match"), NONE)([*texts, "no idea"], ["q"] * 4, log)
    assert exact == [1.0, 0.0, 0.0, 0.0]
    f1 = AnswerReward([CAR], score_by_text("token_f1"), NONE)(texts, ["q"] * 3, log)
    assert f1 == [1.0, 0.8, 0.0]  # "red car": precision 2/2, recall 2/3 → 0.8


def test_every_extra_reward_is_added_by_its_weight_and_logged_apart() -> None:
    weights = ExtraRewards(format=0.1, memory_size=0.3, evidence_kept=0.5)
    # The bank of 7 words is as large as 0.7 of the 10 words read: the 8 words of LONG are a whole turn too much.
    long = operations({"op": "ADD", "text": "Ann lives in Rome now she told Bob"})
    rewards, metrics, _ = manager_reward([UPDATE, long, NOTHING, "I would add this."], weights)
    assert rewards == [
        pytest.approx(1.0 + 0.1 + 0.0 + 0.5),  # the new turn t3 is kept
        pytest.approx(0.0 + 0.1 - 0.3 + 0.5),
        pytest.approx(0.0 + 0.1 + 0.0 + 0.0),
        pytest.approx(0.0),
    ]
    columns = {name: value for name, value in metrics.items() if name.startswith("reward/")}
    assert columns == {
        "reward/answers": 0.25,
        "reward/format": 0.75,
        "reward/memory_size": -0.25,
        "reward/evidence_kept": 0.5,
    }


def test_a_reward_of_weight_zero_is_neither_added_nor_logged() -> None:
    rewards, metrics, _ = manager_reward([UPDATE, NOTHING], ExtraRewards(format=0.1))
    assert rewards == [1.1, 0.1]
    assert {name for name in metrics if name.startswith("reward/")} == {"reward/answers", "reward/format"}


def test_a_turn_about_which_nothing_can_be_asked_teaches_nobody_whatever_its_form() -> None:
    nothing_to_ask = EXAMPLE.model_copy(update={"questions": (), "retention": ()})
    weights = ExtraRewards(format=1.0, memory_size=1.0, evidence_kept=1.0)
    rewards, metrics, _ = manager_reward([UPDATE, NOTHING, "unreadable"], weights, nothing_to_ask)
    assert rewards == [None, None, None]
    assert not any(name.startswith("reward/") for name in metrics)


def test_an_answer_that_parses_earns_the_reward_for_its_form_right_or_wrong() -> None:
    texts = [json.dumps({"memories": [], "answer": answer}) for answer in ("a red car", "boat")]
    metrics = Metrics()
    weights = ExtraRewards(format=0.2, memory_size=1.0)  # the latter is the Manager's
    rewards = AnswerReward([CAR], score_by_text("exact_match"), weights)([*texts, "no idea"], ["q"] * 3, metrics.log)
    assert rewards == [1.2, 0.2, 0.0]
    assert metrics == {
        "parse_failures": pytest.approx(1 / 3),
        "reward/answers": pytest.approx(1 / 3),
        "reward/format": pytest.approx(2 / 3),
    }


def test_one_call_scores_all_answers_of_a_step_and_an_answer_without_a_score_is_left_out() -> None:
    calls: list[list[AnsweredQuestion]] = []

    def score(answers: Sequence[AnsweredQuestion], log_metric: LogMetric) -> list[float | None]:
        calls.append(list(answers))
        return [None if answer.prediction == "boat" else 1.0 for answer in answers]

    texts = [json.dumps({"memories": [], "answer": answer}) for answer in ("a car", "boat")]
    rewards = AnswerReward([CAR], score, NONE)([*texts, "no idea"], ["q"] * 3, Metrics().log)
    assert rewards == [1.0, None, 0.0]
    assert calls == [
        [
            AnsweredQuestion(question="What does she drive?", gold="a red car", prediction="a car"),
            AnsweredQuestion(question="What does she drive?", gold="a red car", prediction="boat"),
        ]
    ]
