"""The served pair on conversations it has never seen, with scripted models."""

import json
from collections.abc import Sequence

import pytest

from memr1.agents.answer_agent import AnswerAgent
from memr1.agents.fact_extractor import TurnExtractor
from memr1.agents.generation import ScriptedGenerator
from memr1.agents.memory_manager import ManagerDecision, ManagerRequest
from memr1.agents.pair import AgentPair, pair_settings
from memr1.bank.embedding import HashEmbedder
from memr1.bank.operation import Operation
from memr1.config import RunConfig
from memr1.errors import DatasetFormatError
from memr1.registry.answering import PairServer, parse_conversation
from tests.builders import conversation

ROME = conversation("same-id", [("Ann", "I live in Rome.")]).model_dump_json()
OSLO = conversation("same-id", [("Ann", "I live in Oslo.")]).model_dump_json()


class CountingManager:
    """Adds every fact, and counts the turns it was shown."""

    name = "counting"

    def __init__(self) -> None:
        self.num_turns = 0

    def decide(self, requests: Sequence[ManagerRequest]) -> list[ManagerDecision]:
        self.num_turns += len(requests)
        return [
            ManagerDecision(operations=tuple(Operation(kind="ADD", text=fact) for fact in request.facts))
            for request in requests
        ]


def name_town(prompt: str) -> str:
    """Answers with the town in its memories; does not parse when asked to swear."""
    if "swear" in prompt:
        return "no!"
    town = "Rome" if "Rome" in prompt else "Oslo"
    return json.dumps({"memories": [{"text": "", "id": 1}], "answer": town})


@pytest.fixture
def manager() -> CountingManager:
    return CountingManager()


@pytest.fixture
def server(manager: CountingManager) -> PairServer:
    agent = AnswerAgent(ScriptedGenerator(name_town), "compact", 64)
    return PairServer(AgentPair(manager, agent, TurnExtractor(), pair_settings(RunConfig())), HashEmbedder())


def test_each_question_is_answered_from_its_own_conversation(server: PairServer) -> None:
    assert server.answer([OSLO, ROME, OSLO], ["Where?"] * 3) == ["Oslo", "Rome", "Oslo"]


def test_a_conversation_is_read_once(server: PairServer, manager: CountingManager) -> None:
    server.answer([ROME, ROME], ["Where?", "Where now?"])
    server.answer([ROME], ["Where again?"])
    assert manager.num_turns == 1


def test_an_output_that_does_not_parse_is_an_empty_answer(server: PairServer) -> None:
    assert server.answer([ROME, ROME], ["swear", "Where?"]) == ["", "Rome"]


def test_banks_asked_about_least_recently_are_forgotten_first(
    server: PairServer, manager: CountingManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memr1.registry.answering.MAX_BANKS", 2)
    third = conversation("third", [("Bob", "I live in Rome too.")]).model_dump_json()
    server.answer([ROME, OSLO], ["Where?"] * 2)
    server.answer([ROME], ["Where?"])  # now OSLO is the oldest
    server.answer([third], ["Where?"])
    server.answer([ROME], ["Where?"])
    assert manager.num_turns == 3
    server.answer([OSLO], ["Where?"])
    assert manager.num_turns == 4


def test_more_conversations_than_are_kept_can_be_asked_about_at_once(
    server: PairServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memr1.registry.answering.MAX_BANKS", 1)
    assert server.answer([ROME, OSLO, ROME], ["Where?"] * 3) == ["Rome", "Oslo", "Rome"]


def test_nobody_asks_nothing(server: PairServer) -> None:
    assert server.answer([], []) == []


def test_role_and_content_messages_are_a_conversation_too() -> None:
    messages = [{"role": "user", "content": "I moved to Rome.", "time": "2024-03-02T09:30"}]
    assert parse_conversation(json.dumps(messages)).speakers == ("user",)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"id": "x"}', '[{"id": "a"}, {"id": "b"}]'])
def test_what_is_no_conversation_is_refused(text: str) -> None:
    with pytest.raises(DatasetFormatError):
        parse_conversation(text)
