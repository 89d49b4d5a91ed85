"""The reward of a completion, from its text to a number, with a scripted Answer Agent."""

import json
from collections.abc import Sequence
from datetime import datetime

from memr1.agents.answer_agent import AnswerAgent
from memr1.agents.generation import ScriptedGenerator
from memr1.bank.embedding import HashEmbedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import Source
from memr1.config import RetrievalConfig
from memr1.rl.examples import AnswerExample, LinkedQuestion, ManagerExample
from memr1.rl.rollout import AnswerReward, ManagerReward

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
    shown=("1", "2"),
    questions=(HOME,),
    retention=(TRADE,),
)


def answer_from_the_memory_about_it(prompt: str) -> str:
    """The last word of the first memory that is about the question's subject."""
    shown, question = prompt.split("question:")
    texts = [json.loads(line)["text"] for line in shown.splitlines() if line.startswith("{")]
    about = [text for text in texts if ("lives" if "live" in question else "bakes") in text]
    return json.dumps({"memories": [1], "answer": about[0].split()[-1] if about else "none"})


class Metrics(dict[str, float]):
    def log(self, name: str, value: float) -> None:
        self[name] = value


def manager_reward(completions: Sequence[str]) -> tuple[list[float | None], Metrics, int]:
    generator = ScriptedGenerator(answer_from_the_memory_about_it)
    metrics = Metrics()
    reward = ManagerReward(
        [EXAMPLE],
        {EXAMPLE.id: BANK},
        {"c": ("Ann", "Bob")},
        AnswerAgent(generator, "compact", 32),
        HashEmbedder(),
        RetrievalConfig(),
        "exact_match",
        max_retention=4,
    )
    rewards = reward(completions, [EXAMPLE.id] * len(completions), metrics.log)
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
    # After OVERWRITE the first memory that tells where Ann lives is still the old one.
    assert rewards == [1.0, 0.0]


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


def test_the_answer_agent_earns_exact_match_or_token_f1() -> None:
    example = AnswerExample(id="q", prompt="p", answer="a red car", category=1, memories=())
    texts = [json.dumps({"memories": [], "answer": answer}) for answer in ("A red car ", "red car", "boat")]
    log = Metrics().log
    exact = AnswerReward([example], "exact_match")([*texts, "no idea"], ["q"] * 4, log)
    assert exact == [1.0, 0.0, 0.0, 0.0]
    f1 = AnswerReward([example], "token_f1")(texts, ["q"] * 3, log)
    assert f1 == [1.0, 0.8, 0.0]  # "red car": precision 2/2, recall 2/3 → 0.8
