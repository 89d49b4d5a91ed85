"""What a journal tells, and files of it: by hand, and for every history."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1.bank.bank import fold_journal
from memr1.bank.embedding import HashEmbedder
from memr1.bank.exchange import export_bank, find_journal, import_bank, read_scope, restore_bank
from memr1.bank.history import (
    compare_banks,
    compare_points,
    count_records,
    entries_at,
    entry_history,
    records_until,
    restoring_records,
)
from memr1.bank.in_memory import InMemoryBank, InMemoryStore
from memr1.bank.journal import format_line, read_journal
from memr1.bank.operation import JournalRecord, Operation, OperationKind, Source
from memr1.errors import BankError, BankUnavailable, UnknownEntry

KINDS: tuple[OperationKind, ...] = ("ADD", "UPDATE", "DELETE", "NOOP")


def heard(turn: int, policy: str = "a") -> Source:
    return Source(turn_id=f"D{turn}:1", speaker="Marta", time=datetime(2024, 5, turn), policy=policy)


def marta() -> InMemoryBank:
    """Records: 1 ADD Lisbon · 2 ADD dog · 3 UPDATE 1 to Rome · 4 DELETE 2 · 5 NOOP, on the days of their numbers."""
    bank = InMemoryBank("c1", HashEmbedder(16))
    bank.apply([Operation(kind="ADD", text="lives in Lisbon")], heard(1))
    bank.apply([Operation(kind="ADD", text="has a dog")], heard(2))
    bank.apply([Operation(kind="UPDATE", entry_id="1", text="lives in Rome")], heard(3, "b"))
    bank.apply([Operation(kind="DELETE", entry_id="2")], heard(4))
    bank.apply([], heard(5).model_copy(update={"failure": "gibberish"}))
    return bank


def texts(records: list[JournalRecord], point: int | datetime) -> list[str]:
    return [entry.text for entry in entries_at(records, point)]


def test_an_entrys_history_has_the_turn_and_the_policy_of_every_change() -> None:
    history = entry_history(marta().journal(), "1")
    assert [(r.operation.kind, r.source.turn_id, r.source.policy) for r in history] == [
        ("ADD", "D1:1", "a"),
        ("UPDATE", "D3:1", "b"),
    ]
    with pytest.raises(UnknownEntry, match="'7'"):
        entry_history(marta().journal(), "7")


def test_a_point_is_a_sequence_number_or_a_time() -> None:
    records = marta().journal()
    assert texts(records, 2) == texts(records, datetime(2024, 5, 2, 23)) == ["lives in Lisbon", "has a dog"]
    assert texts(records, 3) == ["lives in Rome", "has a dog"]
    assert texts(records, 0) == texts(records, datetime(2024, 4, 1)) == []
    assert records_until(records, datetime(2030, 1, 1)) == records
    with pytest.raises(BankError, match="from 0 to 5"):
        entries_at(records, 6)


def test_the_difference_of_two_points_goes_by_id() -> None:
    records = marta().journal()
    difference = compare_points(entries_at(records, 2), entries_at(records, 5))
    assert [entry.text for entry in difference.removed] == ["has a dog"]
    assert [(c.before.text, c.after.text) for c in difference.changed] == [("lives in Lisbon", "lives in Rome")]
    assert (difference.added, difference.num_equal) == ((), 0)


def test_the_difference_of_two_banks_goes_by_words_then_by_turns() -> None:
    other = InMemoryBank("c1", HashEmbedder(16))
    other.apply([Operation(kind="ADD", text="a cat")], heard(9))
    other.apply([Operation(kind="ADD", text="has a dog")], heard(2))
    other.apply([Operation(kind="ADD", text="moved to Rome")], heard(3))
    difference = compare_banks(entries_at(marta().journal(), 3), other.entries())
    assert [(c.before.text, c.after.text) for c in difference.changed] == [("lives in Rome", "moved to Rome")]
    assert ([entry.text for entry in difference.added], difference.removed) == (["a cat"], ())
    assert difference.num_equal == 1


def test_counts_tell_failures_from_decisions() -> None:
    counted = count_records("c1", marta().journal())
    assert (counted.num_records, counted.num_turns, counted.num_entries, counted.num_failures) == (5, 5, 1, 1)
    assert counted.operations == {"ADD": 2, "UPDATE": 1, "DELETE": 1}
    assert counted.records_by_policy == {"a": 4, "b": 1}


def test_a_build_goes_on_behind_the_point_that_was_restored() -> None:
    records = marta().journal()
    restored = restoring_records(records, 2)
    assert [(r.operation.kind, r.source.turn_id, r.source.policy) for r in restored] == [
        ("UPDATE", "D2:1", "restore 2"),
        ("ADD", "D2:1", "restore 2"),
    ]
    assert [r.operation.kind for r in restoring_records(records, 4)] == ["NOOP"]
    assert restoring_records(records, 5) == []
    with pytest.raises(BankError, match="begin a new bank"):
        restoring_records(records, 0)


histories = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 4), st.text(max_size=6)), min_size=1, max_size=12)


def bank_of(history: list[tuple[OperationKind, int, str]], bank: InMemoryBank) -> InMemoryBank:
    for number, (kind, place, text) in enumerate(history):
        held = bank.entries()
        source = Source(turn_id=str(number), speaker="s", time=datetime(2024, 1, 1) + timedelta(number), policy="p")
        if kind in ("UPDATE", "DELETE") and held:
            chosen = held[place % len(held)].id
            bank.apply([Operation(kind=kind, entry_id=chosen, text=f"{text}." if kind == "UPDATE" else "")], source)
        else:
            bank.apply([Operation(kind="ADD", text=f"{text}.")] if kind == "ADD" else [], source)
    return bank


@settings(deadline=None, max_examples=40)
@given(histories, st.integers(1, 12))
def test_a_restored_bank_is_the_bank_of_that_point_in_every_field_and_in_order(
    history: list[tuple[OperationKind, int, str]], point: int
) -> None:
    records = bank_of(history, InMemoryBank("c", HashEmbedder(8))).journal()
    point = min(point, len(records))
    whole = [*records, *restoring_records(records, point)]
    assert fold_journal(whole, "c") == fold_journal(records[:point], "c")
    undone = [*whole, *restoring_records(whole, len(records))]
    assert fold_journal(undone, "c") == fold_journal(records, "c")


@settings(deadline=None, max_examples=20)
@given(st.lists(histories, min_size=1, max_size=2))
def test_what_is_exported_and_imported_is_the_same_bank(
    tmp_path_factory: pytest.TempPathFactory, several: list[list[tuple[OperationKind, int, str]]]
) -> None:
    folder = tmp_path_factory.mktemp("exchange")
    store = InMemoryStore(HashEmbedder(8), folder / "a")
    for number, history in enumerate(several):
        bank_of(history, store.bank(f"c\u2028{number}"))
    store.close()
    assert export_bank(folder / "a", folder / "x.jsonl") == import_bank(folder / "x.jsonl", folder / "b")
    assert read_journal(folder / "b" / "journal.jsonl") == read_journal(folder / "a" / "journal.jsonl")
    assert (folder / "x.jsonl").read_bytes() == (folder / "a" / "journal.jsonl").read_bytes()


def test_import_refuses_what_is_damaged_cut_short_or_there_already(tmp_path: Path) -> None:
    store = InMemoryStore(HashEmbedder(8), tmp_path / "a")
    bank_of([("ADD", 0, "x"), ("ADD", 0, "y")], store.bank("c"))
    store.close()
    export_bank(tmp_path / "a", tmp_path / "x.jsonl")
    with pytest.raises(BankError, match="choose another name"):
        export_bank(tmp_path / "a", tmp_path / "x.jsonl")
    assert import_bank(tmp_path / "x.jsonl", tmp_path / "a") == 0  # nothing is there twice
    store = InMemoryStore(HashEmbedder(8), tmp_path / "other")
    bank_of([("ADD", 0, "z")], store.bank("c"))
    store.close()
    with pytest.raises(BankError, match="scope 'c' already"):
        import_bank(tmp_path / "x.jsonl", tmp_path / "other")
    data = (tmp_path / "x.jsonl").read_bytes()
    for damaged in (data[:-5], data.replace(b'"y."', b'"z."'), data.replace(b'"sequence":1', b'"sequence":3')):
        (tmp_path / "y.jsonl").write_bytes(damaged)
        with pytest.raises(BankError):
            import_bank(tmp_path / "y.jsonl", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_restoring_appends_to_the_journal_of_a_store_that_is_closed(tmp_path: Path) -> None:
    store = InMemoryStore(HashEmbedder(8), tmp_path)
    bank_of([("ADD", 0, "x"), ("ADD", 0, "y"), ("DELETE", 0, "")], store.bank("c"))
    with pytest.raises(BankUnavailable, match="in use"):
        restore_bank(tmp_path, "c", 2)
    store.close()
    assert len(restore_bank(tmp_path, None, 2)) == 1
    again = InMemoryStore(HashEmbedder(8), tmp_path)
    assert [(entry.id, entry.text) for entry in again.bank("c").entries()] == [("1", "x."), ("2", "y.")]
    again.close()


def test_a_bank_is_found_in_its_folder_by_its_file_and_in_a_run(tmp_path: Path) -> None:
    store = InMemoryStore(HashEmbedder(8), tmp_path / "2_bank" / "store")
    for scope in ("c", "d"):
        bank_of([("ADD", 0, "x")], store.bank(scope))
    store.close()
    journal = tmp_path / "2_bank" / "store" / "journal.jsonl"
    assert find_journal(tmp_path) == find_journal(journal.parent) == find_journal(journal) == journal
    with pytest.raises(BankError, match=r"name a scope: it holds 2 \(c, d\)"):
        read_scope(tmp_path, None)
    with pytest.raises(BankError, match="no scope 'e'"):
        read_scope(tmp_path, "e")
    with pytest.raises(BankError, match="holds no bank"):
        find_journal(tmp_path / "none")


@pytest.mark.parametrize(
    "change",
    [
        {"scope": "other"},
        {"id": "2"},
        {"id": "0"},
        {"id": "01"},
        {"id": "１"},
        {"id": "-1"},
        {"id": "../1"},
        {"id": ""},
        {"id": "1" * 5000},
    ],
)
def test_an_import_with_an_entry_of_another_scope_or_an_id_that_was_never_given_is_refused(
    tmp_path: Path, change: dict[str, str]
) -> None:
    (record,) = bank_of([("ADD", 0, "x")], InMemoryBank("c", HashEmbedder(8))).journal()
    assert record.after is not None
    forged = record.model_copy(update={"after": record.after.model_copy(update=change)})
    (tmp_path / "forged.jsonl").write_bytes(format_line(forged))
    with pytest.raises(BankError, match="contradicts itself at record 1"):
        import_bank(tmp_path / "forged.jsonl", tmp_path / "b")
    assert not (tmp_path / "b").exists()
