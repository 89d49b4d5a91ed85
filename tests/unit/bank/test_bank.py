"""The algebra of operations and journals."""

from datetime import datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1.bank.bank import apply_operation, fold_journal, record_operations
from memr1.bank.embedding import HashEmbedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryBank, MemoryJournal
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.errors import BankError, BankUnavailable, UnknownEntry

Step = tuple[list[Operation], Source]
names = st.sampled_from(["Marta", "Joe", "", "\x00'\n"])


def heard(turn_id: str = "D1:1", speaker: str = "Marta", day: int = 1) -> Source:
    return Source(turn_id=turn_id, speaker=speaker, time=datetime(2024, 5, day), policy="test")


def entry(entry_id: str, text: str, turn_ids: tuple[str, ...] = ("D1:1",)) -> MemoryEntry:
    time = datetime(2024, 5, 1)
    return MemoryEntry(id=entry_id, scope="c1", speaker="Marta", text=text, time=time, turn_ids=turn_ids)


@st.composite
def journals(draw: st.DrawFn, scope: str = "c1") -> list[JournalRecord]:
    """The journal of up to twelve turns with up to three operations each, any of them valid."""
    journal: list[JournalRecord] = []
    entries: list[MemoryEntry] = []
    for _ in range(draw(st.integers(0, 12))):
        source = heard(draw(st.text(max_size=3)), draw(names), draw(st.integers(1, 28)))
        operations: list[Operation] = []
        ids = [held.id for held in entries]
        for _ in range(draw(st.integers(0, 3))):
            kind = draw(st.sampled_from(["ADD", "NOOP", "UPDATE", "DELETE"] if ids else ["ADD", "NOOP"]))
            entry_id = draw(st.sampled_from(ids)) if kind in ("UPDATE", "DELETE") else ""
            if kind == "DELETE":
                ids.remove(entry_id)
            text = draw(st.text(min_size=1, max_size=5).filter(str.strip)) if kind in ("ADD", "UPDATE") else ""
            operations.append(Operation.model_validate({"kind": kind, "text": text, "entry_id": entry_id}))
        entries, records = record_operations(entries, operations, source, scope=scope, sequence=len(journal) + 1)
        journal += records
    return journal


def test_an_update_by_the_same_turn_names_the_turn_once() -> None:
    update = Operation(kind="UPDATE", entry_id="1", text="b")
    (changed,) = apply_operation([entry("1", "a")], update, heard("D1:1"), scope="c1", sequence=2)
    assert changed == entry("1", "b")


def test_the_entries_that_were_given_are_left_alone() -> None:
    entries = [entry("1", "a"), entry("2", "b")]
    after = apply_operation(entries, Operation(kind="DELETE", entry_id="1"), heard(), scope="c1", sequence=3)
    assert [item.id for item in after] == ["2"]
    assert [item.id for item in entries] == ["1", "2"]


def test_an_unknown_entry_is_named_with_its_turn_scope_and_bank_size() -> None:
    with pytest.raises(UnknownEntry, match=r"DELETE at turn 'D1:1' names entry '7'.*scope 'c1' \(1 entries\)"):
        apply_operation([entry("1", "a")], Operation(kind="DELETE", entry_id="7"), heard(), scope="c1", sequence=2)


def test_records_of_one_apply_count_down_to_its_end() -> None:
    add = Operation(kind="ADD", text="a")
    _, records = record_operations([], [add, add, add], heard(), scope="c1", sequence=4)
    assert [(record.sequence, record.num_following) for record in records] == [(4, 2), (5, 1), (6, 0)]


@settings(deadline=None, max_examples=50)
@given(journals())
def test_replaying_the_operations_gives_the_same_records(journal: list[JournalRecord]) -> None:
    entries: list[MemoryEntry] = []
    for record in journal:
        sequence = record.sequence
        replayed, (again,) = record_operations(
            entries, [record.operation], record.source, scope="c1", sequence=sequence
        )
        assert again.model_copy(update={"num_following": record.num_following}) == record
        assert replayed == apply_operation(entries, record.operation, record.source, scope="c1", sequence=sequence)
        entries = replayed
        assert fold_journal(journal[:sequence], "c1") == entries


@settings(deadline=None, max_examples=50)
@given(journals("a"), journals("b"), st.randoms())
def test_a_fold_sees_its_own_scope_only_however_journals_are_mixed(
    left: list[JournalRecord], right: list[JournalRecord], random: Random
) -> None:
    pending, mixed = [list(left), list(right)], []
    while any(pending):
        source = random.choice([records for records in pending if records])
        mixed.append(source.pop(0))
    assert fold_journal(mixed, "a") == fold_journal(left, "a")
    assert fold_journal(mixed, "b") == fold_journal(right, "b")
    assert all(item.scope == "a" for item in fold_journal(mixed, "a"))


@settings(deadline=None, max_examples=50)
@given(journals(), st.data())
def test_a_journal_with_a_record_missing_is_refused(journal: list[JournalRecord], data: st.DataObject) -> None:
    if len(journal) < 2:
        return
    missing = data.draw(st.integers(0, len(journal) - 2))
    with pytest.raises(BankError, match="contradicts itself"):
        fold_journal(journal[:missing] + journal[missing + 1 :], "c1")


def test_a_journal_whose_before_was_not_held_is_refused() -> None:
    _, journal = record_operations([], [Operation(kind="ADD", text="a")], heard(), scope="c1", sequence=1)
    wrong = journal[0].model_copy(update={"sequence": 2, "before": entry("1", "other")})
    with pytest.raises(BankError, match="at record 2"):
        fold_journal([*journal, wrong], "c1")


def test_a_bank_made_from_entries_goes_on_after_their_ids() -> None:
    bank = InMemoryBank("c1", HashEmbedder(), entries=[entry("3", "a"), entry("12", "b")])
    (record,) = bank.apply([Operation(kind="ADD", text="c")], heard())
    assert (record.sequence, [item.id for item in bank.entries()]) == (13, ["3", "12", "13"])


def test_a_bank_refuses_entries_of_another_scope() -> None:
    with pytest.raises(BankError, match="belongs to scope 'c1', not to 'c2'"):
        InMemoryBank("c2", HashEmbedder(), entries=[entry("1", "a")])


def test_a_failed_commit_leaves_the_bank_as_it_was() -> None:
    journal = MemoryJournal()
    journal.close()
    bank = InMemoryBank("c1", HashEmbedder(), journal=journal)
    with pytest.raises(BankUnavailable, match="closed"):
        bank.apply([Operation(kind="ADD", text="a")], heard())
    assert (bank.entries(), bank.journal()) == ([], [])
