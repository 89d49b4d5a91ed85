"""The same turns under another policy: always-add against a Manager that keeps one fact per turn."""

from collections.abc import Sequence

import pytest

from memr1.agents.bank_builder import build_banks
from memr1.agents.fact_extractor import TurnExtractor
from memr1.agents.memory_manager import ManagerDecision, ManagerRequest
from memr1.agents.replay import replay_journal
from memr1.bank.embedding import HashEmbedder
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.operation import Operation
from memr1.data.conversation import Conversation
from memr1.errors import BankError
from memr1.evaluation.baselines import AlwaysAddManager
from tests.builders import conversation

LINES = [("Ann", "I live in Rome."), ("Bob", "I drive a Fiat."), ("Ann", "I moved to Oslo."), ("Bob", "Bye.")]


class Overwriting:
    """Keeps one entry of each speaker: what was said last."""

    name = "overwriting"

    def decide(self, requests: Sequence[ManagerRequest]) -> list[ManagerDecision]:
        return [ManagerDecision(operations=(_overwrite(request),)) for request in requests]


def _overwrite(request: ManagerRequest) -> Operation:
    if request.memories:
        return Operation(kind="UPDATE", entry_id=request.memories[0].id, text=request.facts[0])
    return Operation(kind="ADD", text=request.facts[0])


def test_a_replay_reads_the_journals_turns_and_no_others() -> None:
    embedder = HashEmbedder(16)
    first, second = InMemoryStore(embedder), InMemoryStore(embedder)
    heard = conversation(lines=LINES[:3])
    build_banks([heard], AlwaysAddManager(), TurnExtractor(), first, entries_per_turn=4, embedder=embedder)
    journal = first.bank("c1").journal()
    (replayed,), summary = replay_journal(
        journal,
        [conversation(lines=LINES)],
        Overwriting(),
        TurnExtractor(),
        second,
        entries_per_turn=4,
        embedder=embedder,
    )
    assert [entry.text for entry in second.bank("c1").entries()] == ["Ann: I moved to Oslo.", "Bob: I drive a Fiat."]
    assert (replayed.num_turns, summary.num_calls, replayed.difference.num_equal) == (3, 3, 2)
    assert [entry.text for entry in replayed.difference.removed] == ["Ann: I live in Rome."]
    assert {record.source.policy for record in second.bank("c1").journal()} == {"overwriting"}


def test_a_replay_refuses_other_conversations_and_a_store_in_use() -> None:
    embedder = HashEmbedder(16)
    store = InMemoryStore(embedder)
    build_banks([conversation()], AlwaysAddManager(), TurnExtractor(), store, entries_per_turn=4, embedder=embedder)
    journal = store.bank("c1").journal()

    def replay(into: InMemoryStore, *conversations: Conversation) -> None:
        replay_journal(
            journal,
            list(conversations),
            AlwaysAddManager(),
            TurnExtractor(),
            into,
            entries_per_turn=4,
            embedder=embedder,
        )

    with pytest.raises(BankError, match="no conversation 'c1'"):
        replay(InMemoryStore(embedder), conversation("c2"))
    with pytest.raises(BankError, match="has no turn 'D1:2'"):
        replay(InMemoryStore(embedder), conversation(lines=LINES[:1]))
    with pytest.raises(BankError, match="holds scope 'c1' already"):
        replay(store, conversation())
