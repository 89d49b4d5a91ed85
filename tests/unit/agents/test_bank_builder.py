import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any
from weakref import WeakSet, ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1.agents.bank_builder import FailedOutput, build_banks, unread_turns
from memr1.agents.fact_extractor import ObservationExtractor, Spoken, TurnExtractor
from memr1.agents.generation import ScriptedGenerator
from memr1.agents.memory_manager import ManagerDecision, ManagerRequest, MemoryManager
from memr1.bank import shelf
from memr1.bank.embedding import HashEmbedder
from memr1.bank.exchange import export_bank
from memr1.bank.in_memory import InMemoryBank, InMemoryStore
from memr1.bank.operation import Operation
from memr1.data.conversation import Conversation, Fact
from memr1.errors import AgentError, BankError, GenerationFailed
from tests.bank_histories import ChangingManager
from tests.builders import conversation


class AddingManager:
    """Adds every fact; remembers what it was shown; may stop after some turns, as if it were killed."""

    name = "adding"

    def __init__(self, stop_after: int = 10**9) -> None:
        self.batches: list[list[ManagerRequest]] = []
        self._left = stop_after

    def decide(self, requests: Sequence[ManagerRequest]) -> list[ManagerDecision]:
        self._left -= len(requests)
        if self._left < 0:
            raise GenerationFailed("killed")
        self.batches.append(list(requests))
        return [
            ManagerDecision(operations=tuple(Operation(kind="ADD", text=fact) for fact in request.facts))
            for request in requests
        ]


def scripted(*replies: str) -> MemoryManager:
    return MemoryManager(ScriptedGenerator(replies), "compact", 64)


def build(conversations, manager, store, extractor=None, **options):  # type: ignore[no-untyped-def]
    options = {"entries_per_turn": 3, "embedder": HashEmbedder(), **options}
    return build_banks(conversations, manager, extractor or TurnExtractor(), store, **options)


def lines(name: str, number: int) -> Conversation:
    return conversation(name, [("Ann" if place % 2 else "Bob", f"line {place}") for place in range(number)])


def new_store(folder: Path | None = None) -> InMemoryStore:
    return InMemoryStore(HashEmbedder(), folder)


def test_step_t_of_every_conversation_is_one_batch() -> None:
    manager, store = AddingManager(), new_store()
    build([lines("a", 3), lines("b", 1), lines("c", 2)], manager, store)
    assert [[request.facts for request in batch] for batch in manager.batches] == [
        [("Bob: line 0",)] * 3,
        [("Ann: line 1",)] * 2,
        [("Bob: line 2",)],
    ]


def test_a_turn_is_shown_the_best_entries_of_its_own_speaker() -> None:
    spoken = [
        ("Ann", "I like tea."),
        ("Bob", "I live in Oslo."),
        ("Ann", "I live in Rome."),
        ("Ann", "I live in Oslo."),
    ]
    manager, store = AddingManager(), new_store()
    build([conversation("a", spoken)], manager, store, entries_per_turn=1)
    shown = [[entry.text for batch in manager.batches for entry in batch[0].memories]]
    assert shown == [["Ann: I like tea.", "Ann: I live in Rome."]]


def test_entries_say_which_turn_they_come_from_and_who_decided() -> None:
    store = new_store()
    build([conversation("a", [("Ann", "x")] * 3, turns_per_session=2)], AddingManager(), store)
    entry, record = store.bank("a").entries()[2], store.bank("a").journal()[2]
    assert (entry.speaker, entry.turn_ids, entry.time.day) == ("Ann", ("D2:1",), 2)
    assert (record.source.policy, record.source.failure) == ("adding", None)


def test_the_summary_counts_what_was_decided() -> None:
    manager = scripted(
        '{"operations":[{"op":"ADD","text":"Bob a"},{"op":"ADD","text":"Bob b"}]}',
        '{"operations":[]}',
        "no JSON at all",
        '{"operations":[{"op":"NOOP"}]}',
        '{"operations":[{"op":"DELETE","id":1}]}',
    )
    store = new_store()
    summary = build([lines("a", 5)], manager, store)
    assert summary.operations == {"ADD": 2, "UPDATE": 0, "DELETE": 1, "NOOP": 2}
    assert (summary.num_turns, summary.num_facts, summary.num_calls, summary.num_entries) == (5, 5, 5, 1)
    assert summary.num_parse_failures == 1
    assert summary.failures == (FailedOutput(conversation_id="a", turn_id="D1:3", text="no JSON at all"),)


def test_an_output_without_a_single_letter_is_a_failure_too() -> None:
    summary = build([lines("a", 2)], scripted('{"operations":[]}', ""), new_store())
    assert summary.failures == (FailedOutput(conversation_id="a", turn_id="D1:2", text=""),)


def test_turns_without_facts_cost_no_call_and_do_not_hold_the_others_back() -> None:
    facts = [Fact(speaker="Ann", text=f"fact {number}", turn_id=f"D1:{number}") for number in (3, 4)]
    early = conversation("a", [("Ann", "x")] * 5, facts=facts)
    late = conversation("b", [("Ann", "x")] * 5, facts=[Fact(speaker="Ann", text="late", turn_id="D1:5")])
    manager, store, steps = AddingManager(), new_store(), []
    summary = build([early, late], manager, store, ObservationExtractor(), on_step=lambda *step: steps.append(step))
    assert [[request.turn_id for request in batch] for batch in manager.batches] == [["D1:3", "D1:5"], ["D1:4"]]
    assert (summary.num_turns, summary.num_facts, summary.num_calls) == (10, 3, 3)
    assert steps[0] == (8, 10) and steps[-1] == (10, 10)


@pytest.mark.parametrize("num_calls", [0, 1, 2, 4, 5, 7, 8])
def test_a_killed_build_goes_on_where_it_stopped_and_no_turn_is_read_twice(tmp_path: Path, num_calls: int) -> None:
    conversations = [lines("a", 5), lines("b", 3)]
    whole = new_store()
    expected = build(conversations, AddingManager(), whole)
    store = new_store(tmp_path)
    if num_calls < 8:
        with pytest.raises(GenerationFailed):
            build(conversations, AddingManager(stop_after=num_calls), store)
    else:
        build(conversations, AddingManager(), store)
    store.close()
    store, manager = new_store(tmp_path), AddingManager()
    resumed = build(conversations, manager, store)
    for name in ("a", "b"):
        assert store.bank(name).entries() == whole.bank(name).entries()
        assert [record.source.turn_id for record in store.bank(name).journal()] == [
            record.source.turn_id for record in whole.bank(name).journal()
        ]
    assert resumed.model_copy(update={"seconds": 0, "num_facts": 0}) == expected.model_copy(
        update={"seconds": 0, "num_facts": 0}
    )
    assert build(conversations, AddingManager(stop_after=0), store).num_facts == 0
    store.close()


def test_a_failure_before_a_kill_is_still_counted_after_it(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with pytest.raises(GenerationFailed, match="2 replies are used up"):  # a model that dies in the middle
        build([lines("a", 3)], scripted('{"operations":[]}', "garbage"), store)
    store.close()
    store = new_store(tmp_path)
    summary = build([lines("a", 3)], scripted('{"operations":[]}'), store)
    assert [failure.turn_id for failure in summary.failures] == ["D1:2"]
    assert summary.operations["NOOP"] == 2 and summary.num_calls == 3
    store.close()


def test_a_model_that_only_prints_garbage_is_an_error_and_leaves_every_turn_unread(tmp_path: Path) -> None:
    calls: list[str] = []

    def garble(prompt: str) -> str:
        calls.append(prompt)
        return "blah"

    store = new_store(tmp_path)
    with pytest.raises(AgentError, match=r"none of the 50 outputs .* scripted .*no JSON object.*'blah'"):
        build([lines("a", 200)], MemoryManager(ScriptedGenerator(garble), "compact", 64), store)
    assert len(calls) == 50 and store.bank("a").journal() == []
    assert len(unread_turns(lines("a", 200), store.bank("a").journal())) == 200
    store.close()


def test_a_few_unreadable_outputs_are_an_error_at_the_end_only_when_there_are_ten_of_them() -> None:
    with pytest.raises(AgentError, match="none of the 10 outputs"):
        build([lines("a", 10)], scripted(*["blah"] * 10), new_store())
    store = new_store()
    assert build([lines("a", 9)], scripted(*["blah"] * 9), store).num_parse_failures == 9
    assert [record.operation.kind for record in store.bank("a").journal()] == ["NOOP"] * 9


def test_failures_before_the_first_readable_output_are_kept_in_their_place() -> None:
    store = new_store()
    good = json.dumps({"operations": [{"op": "ADD", "text": "x"}]})
    summary = build([lines("a", 60)], scripted(*["blah"] * 40, *[good] * 20), store)
    assert [record.sequence for record in store.bank("a").journal()] == list(range(1, 61))
    assert (summary.num_parse_failures, summary.operations["ADD"]) == (40, 20)


def test_a_journal_of_another_conversation_is_refused() -> None:
    store = new_store()
    build([conversation("a", [("Ann", "x")] * 9)], AddingManager(), store)
    with pytest.raises(BankError, match=r"ends at turn 'D1:9', which conversation 'a' does not have"):
        build([conversation("a", [("Ann", "x")] * 4)], AddingManager(), store)


def test_nothing_to_read_asks_nobody() -> None:
    summary = build([], AddingManager(stop_after=0), new_store())
    assert (summary.num_turns, summary.num_calls, summary.num_entries) == (0, 0, 0)


def test_where_a_conversation_ends_the_next_one_comes_in() -> None:
    manager = AddingManager()
    summary = build(
        [lines("a", 3), lines("b", 1), lines("c", 2), lines("d", 1)], manager, new_store(), conversations_at_once=2
    )
    batches = [[(request.scope, request.turn_id) for request in batch] for batch in manager.batches]
    assert batches == [
        [("a", "D1:1"), ("b", "D1:1")],
        [("a", "D1:2"), ("c", "D1:1")],
        [("a", "D1:3"), ("c", "D1:2")],
        [("d", "D1:1")],
    ]
    assert (summary.num_turns, summary.num_calls) == (7, 7)


class ForgetfulExtractor(TurnExtractor):
    """Finds nothing in a third of the turns."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def extract(self, turns: Sequence[Spoken]) -> list[list[Fact]]:
        """See `TurnExtractor`."""
        dice = [Random(f"{self._seed} {conversation.id} {turn.id}").random() for conversation, _, turn in turns]
        return [facts if luck > 1 / 3 else [] for facts, luck in zip(super().extract(turns), dice, strict=True)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), max_size=7), st.integers(1, 8), st.integers(0, 99))
def test_how_many_conversations_are_read_at_once_changes_no_bank_no_order_and_no_count(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], conversations_at_once: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("banks")
    conversations = [lines(f"c{number}", length) for number, length in enumerate(lengths)]
    built = []
    for at_once in (99, conversations_at_once):
        place, file = folder / f"bank {len(built)}", folder / f"{len(built)}.jsonl"
        with closing(new_store(place)) as store:
            extractor = ForgetfulExtractor(seed)
            summary = build(conversations, ChangingManager(), store, extractor, conversations_at_once=at_once)
        export_bank(place, file)
        built.append((file.read_bytes(), summary.model_copy(update={"seconds": 0})))
    assert built[0] == built[1]


def test_failures_of_a_conversation_that_has_ended_are_journaled_when_a_later_one_can_be_read() -> None:
    store = new_store()
    replies = [*["blah"] * 5, '{"operations":[]}']
    summary = build([lines("a", 5), lines("b", 1)], scripted(*replies), store, conversations_at_once=1)
    assert [record.source.failure for record in store.bank("a").journal()] == ["blah"] * 5
    assert (summary.num_parse_failures, summary.operations["NOOP"]) == (5, 1)


class MadeWhenAsked(Sequence[Conversation]):
    """Conversations that nobody keeps; remembers how many were alive at once."""

    def __init__(self, number: int) -> None:
        self._number, self._made, self.most_alive = number, list[ref[Conversation]](), 0

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, place: Any) -> Any:
        if place >= self._number:
            raise IndexError(place)
        made = lines(f"c{place}", 4)
        self._made.append(ref(made))
        self.most_alive = max(self.most_alive, sum(item() is not None for item in self._made))
        return made


class WatchedStore(InMemoryStore):
    """Remembers how many banks were alive at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(HashEmbedder(), folder)
        self._seen, self.most_alive = WeakSet[InMemoryBank](), 0

    def bank(self, scope: str) -> InMemoryBank:
        """See `InMemoryStore.bank`."""
        bank = super().bank(scope)
        self._seen.add(bank)
        self.most_alive = max(self.most_alive, len(self._seen))
        return bank


def test_only_the_conversations_that_are_being_read_and_their_banks_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "BANKS_KEPT", 2)
    conversations = MadeWhenAsked(40)
    with closing(WatchedStore(tmp_path)) as store:
        summary = build(conversations, ChangingManager(), store, conversations_at_once=4)
        assert summary.num_calls == 160
        assert store.most_alive <= 4 + 2 + 4  # read, last asked for, and of the batch before
    assert conversations.most_alive <= 4 + 4
