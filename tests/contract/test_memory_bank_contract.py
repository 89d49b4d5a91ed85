"""What every kind of memory bank does alike. A new kind joins by one name in KINDS and one fixture, in conftest.py."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memr1.bank.bank import BankStore, MemoryBank, apply_operation, fold_journal
from memr1.bank.embedding import HashEmbedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryBank, InMemoryStore
from memr1.bank.journal import read_journal
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.errors import BankError, BankUnavailable, UnknownEntry

Opener = Callable[[Path], BankStore]
HOSTILE = [
    "'; DROP TABLE entries; --",
    "a\nb",
    "\x00",
    "../..",
    "",
    "%",
    "x\u2028y",
    '{"id": 1}',
    "\u00e9",
    "e\u0301",
    "NULL",
]
PEOPLE, PLACES = ("Marta", "Joe"), ("Lisbon", "Rome", "Oslo", "Bern")
QUERIES = ("Where does Marta live?", "who moved to Rome", "Joe's dog", "tea in Oslo or Bern", "nothing of the kind", "")
hostile_text = st.sampled_from(HOSTILE) | st.text(max_size=12)


@pytest.fixture
def store(open_bank_store: Opener, tmp_path: Path) -> Iterator[BankStore]:
    with closing(open_bank_store(tmp_path / "bank")) as opened:
        yield opened


def heard(turn_id: str = "D1:1", speaker: str = "Marta", day: int = 1) -> Source:
    return Source(turn_id=turn_id, speaker=speaker, time=datetime(2024, 5, day), policy="test")


def add(text: str) -> Operation:
    return Operation(kind="ADD", text=text)


def texts(entries: list[MemoryEntry]) -> list[str]:
    return [entry.text for entry in entries]


def test_add_appends_an_entry_of_the_speaker_with_its_turn_and_time(store: BankStore) -> None:
    bank = store.bank("c1")
    (record,) = bank.apply([add("Marta lives in Lisbon")], heard("D1:3", day=4))
    (entry,) = bank.entries()
    assert entry == record.after
    assert (entry.id, entry.scope, entry.speaker) == ("1", "c1", "Marta")
    assert (entry.time, entry.turn_ids) == (datetime(2024, 5, 4), ("D1:3",))


def test_update_replaces_the_text_in_place_and_appends_its_turn(store: BankStore) -> None:
    bank = store.bank("c1")
    bank.apply([add("Marta lives in Lisbon"), add("Marta has a dog")], heard("D1:1"))
    bank.apply([Operation(kind="UPDATE", entry_id="1", text="Marta lives in Rome")], heard("D2:1", "Joe", day=9))
    first, second = bank.entries()
    assert (first.text, first.turn_ids, first.time) == ("Marta lives in Rome", ("D1:1", "D2:1"), datetime(2024, 5, 9))
    assert (first.id, first.speaker, second.text) == ("1", "Marta", "Marta has a dog")


def test_delete_removes_and_its_id_is_never_given_again(store: BankStore) -> None:
    bank = store.bank("c1")
    bank.apply([add("a")], heard())
    bank.apply([Operation(kind="DELETE", entry_id="1")], heard())
    bank.apply([add("b")], heard())
    assert [entry.id for entry in bank.entries()] == ["3"]


def test_no_operation_leaves_the_bank_alone_and_one_noop_in_the_journal(store: BankStore) -> None:
    bank = store.bank("c1")
    records = bank.apply([], heard("D1:7"))
    assert [(record.operation.kind, record.source.turn_id) for record in records] == [("NOOP", "D1:7")]
    assert bank.journal() == records
    assert bank.entries() == []
    assert store.scopes() == ["c1"]


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (Operation(kind="UPDATE", entry_id="9", text="x"), UnknownEntry),
        (Operation(kind="DELETE", entry_id="9"), UnknownEntry),
        (Operation(kind="DELETE"), UnknownEntry),
        (Operation(kind="ADD", text="  "), BankError),
        (Operation(kind="UPDATE", entry_id="1"), BankError),
    ],
)
def test_one_bad_operation_undoes_its_whole_list(
    store: BankStore, operation: Operation, error: type[BankError]
) -> None:
    bank = store.bank("c1")
    bank.apply([add("kept")], heard())
    with pytest.raises(error, match="D2:2"):
        bank.apply([add("before"), operation, add("after")], heard("D2:2"))
    assert texts(bank.entries()) == ["kept"]
    assert len(bank.journal()) == 1
    bank.apply([add("next")], heard())
    assert [entry.id for entry in bank.entries()] == ["1", "2"]


def test_an_entry_deleted_earlier_in_the_list_is_unknown_later_in_it(store: BankStore) -> None:
    bank = store.bank("c1")
    bank.apply([add("a")], heard())
    with pytest.raises(UnknownEntry, match="'1'"):
        bank.apply([Operation(kind="DELETE", entry_id="1")] * 2, heard())
    assert texts(bank.entries()) == ["a"]


def test_entries_and_retrieval_can_be_narrowed_to_one_speaker(store: BankStore) -> None:
    bank = store.bank("c1")
    bank.apply([add("Marta likes tea")], heard(speaker="Marta"))
    bank.apply([add("Joe likes tea")], heard(speaker="Joe"))
    assert texts(bank.entries("Joe")) == ["Joe likes tea"]
    assert texts(bank.retrieve("who likes tea", speaker="Marta", limit=5)) == ["Marta likes tea"]
    assert len(bank.retrieve("who likes tea", speaker=None, limit=5)) == 2
    assert bank.retrieve("who likes tea", speaker="Nobody", limit=5) == []


def test_retrieval_follows_every_change(store: BankStore) -> None:
    bank = store.bank("c1")
    bank.apply([add("Marta lives in Lisbon"), add("Joe plays chess"), add("the cat is grey")], heard())
    assert texts(bank.retrieve("where does Marta live, Lisbon?", speaker=None, limit=1)) == ["Marta lives in Lisbon"]
    bank.apply([Operation(kind="UPDATE", entry_id="1", text="Marta moved to Rome")], heard())
    assert texts(bank.retrieve("Marta Rome", speaker=None, limit=1)) == ["Marta moved to Rome"]
    bank.apply([Operation(kind="DELETE", entry_id="1"), add("a violin hangs on the wall")], heard())
    assert texts(bank.retrieve("violin on the wall", speaker=None, limit=1)) == ["a violin hangs on the wall"]
    assert len(bank.retrieve("Marta Rome", speaker=None, limit=9)) == 3


def test_a_limit_of_zero_or_an_empty_bank_gives_nothing(store: BankStore) -> None:
    bank = store.bank("c1")
    assert bank.retrieve("tea", speaker=None, limit=5) == []
    bank.apply([add("tea")], heard())
    assert bank.retrieve("tea", speaker=None, limit=0) == []


def test_scopes_never_see_each_other(store: BankStore) -> None:
    scopes = [*HOSTILE, "c1", "c1 ", "C1", "c1/c1"]
    for number, scope in enumerate(scopes):
        store.bank(scope).apply([add(f"secret {number}")], heard())
    for number, scope in enumerate(scopes):
        assert texts(store.bank(scope).retrieve("secret", speaker=None, limit=99)) == [f"secret {number}"]
    assert store.scopes() == scopes


def test_the_same_bank_is_handed_out_every_time(store: BankStore) -> None:
    assert store.bank("c1") is store.bank("c1")
    assert store.scopes() == []


def test_everything_is_there_after_reopening(open_bank_store: Opener, tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    with closing(open_bank_store(folder)) as store:
        change_three_scopes(store)
        before = state(store)
    with closing(open_bank_store(folder)) as store:
        assert state(store) == before
        change_three_scopes(store)
        again = state(store)
    with closing(open_bank_store(folder)) as store:
        assert state(store) == again != before


def test_aware_times_keep_their_zone_over_reopening(open_bank_store: Opener, tmp_path: Path) -> None:
    source = Source(turn_id="D1:1", speaker="Marta", time=datetime(2024, 5, 1, 23, 59, 59, 123456, UTC), policy="test")
    with closing(open_bank_store(tmp_path)) as store:
        store.bank("c1").apply([add("a")], source)
    with closing(open_bank_store(tmp_path)) as store:
        assert store.bank("c1").entries()[0].time == source.time


def test_grouped_commits_are_all_there_after_reopening(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path)) as store:
        with store.group_commits():
            change_three_scopes(store)
        before = state(store)
    with closing(open_bank_store(tmp_path)) as store:
        assert state(store) == before


def test_what_was_applied_before_an_error_in_a_group_is_kept(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path)) as store, pytest.raises(UnknownEntry), store.group_commits():
        store.bank("c1").apply([add("a")], heard())
        store.bank("c1").apply([Operation(kind="DELETE", entry_id="9")], heard())
    with closing(open_bank_store(tmp_path)) as store:
        assert texts(store.bank("c1").entries()) == ["a"]


def test_a_closed_store_refuses_changes_and_may_be_closed_again(store: BankStore) -> None:
    bank = store.bank("c1")
    store.close()
    store.close()
    with pytest.raises(BankUnavailable, match="closed"):
        bank.apply([add("a")], heard())
    assert bank.entries() == []


def test_a_second_store_on_the_same_folder_is_refused(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path)), pytest.raises(BankUnavailable, match="in use"):
        open_bank_store(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(open_bank_store: Opener, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BankUnavailable, match="file/bank"):
        open_bank_store(tmp_path / "file" / "bank")


def test_retrieval_gives_the_same_entries_in_the_same_order_as_the_reference(store: BankStore) -> None:
    reference = InMemoryBank("c1", HashEmbedder())
    for bank in (reference, store.bank("c1")):
        tell_of_a_town(bank)
    for query in QUERIES:
        for speaker in (None, *PEOPLE):
            expected = reference.retrieve(query, speaker=speaker, limit=30)
            assert len(expected) == (30 if speaker is None else 24)
            assert store.bank("c1").retrieve(query, speaker=speaker, limit=30) == expected


def test_retrieval_is_the_same_after_reopening(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path)) as store:
        tell_of_a_town(store.bank("c1"))
        before = [store.bank("c1").retrieve(query, speaker=None, limit=30) for query in QUERIES]
    with closing(open_bank_store(tmp_path)) as store:
        assert [store.bank("c1").retrieve(query, speaker=None, limit=30) for query in QUERIES] == before


def test_ties_go_to_the_entry_that_was_added_first(store: BankStore) -> None:
    bank = store.bank("c1")
    bank.apply([add("the same words")] * 12, heard())
    assert [entry.id for entry in bank.retrieve("the same words", speaker=None, limit=12)] == [*map(str, range(1, 13))]
    assert [entry.id for entry in bank.retrieve("nothing alike", speaker=None, limit=3)] == ["1", "2", "3"]


def test_an_update_keeps_its_place_among_ties(store: BankStore) -> None:
    bank = store.bank("c1")
    bank.apply([add("another"), add("the same words")], heard())
    bank.apply([Operation(kind="UPDATE", entry_id="1", text="the same words")], heard("D2:1"))
    assert [entry.id for entry in bank.retrieve("the same words", speaker=None, limit=2)] == ["1", "2"]


def test_a_limit_beyond_the_bank_gives_every_entry_once(store: BankStore) -> None:
    bank = store.bank("c1")
    tell_of_a_town(bank)
    found = bank.retrieve("who lives in Rome?", speaker=None, limit=1000)
    assert sorted(found, key=lambda entry: int(entry.id)) == bank.entries()


def test_replaying_the_operations_gives_the_same_entries_with_the_same_ids(store: BankStore) -> None:
    change_three_scopes(store)
    again = InMemoryStore(HashEmbedder())
    for scope in store.scopes():
        for record in store.bank(scope).journal():
            again.bank(scope).apply([record.operation], record.source)
        assert again.bank(scope).entries() == store.bank(scope).entries()


def test_a_prefix_of_the_journal_gives_the_bank_as_it_was(store: BankStore) -> None:
    bank = store.bank("c1")
    states = [bank.entries()]
    for operation in (add("a"), Operation(kind="UPDATE", entry_id="1", text="b"), add("c"), Operation(kind="NOOP")):
        bank.apply([operation], heard())
        states.append(bank.entries())
    assert [fold_journal(bank.journal()[:number], "c1") for number in range(5)] == states


def test_a_record_keeps_what_a_policy_said_when_it_could_not_be_read(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path)) as store:
        store.bank("c1").apply([], heard().model_copy(update={"failure": '{"operations": ["'}))
    with closing(open_bank_store(tmp_path)) as store:
        assert [record.source.failure for record in store.bank("c1").journal()] == ['{"operations": ["']


def test_the_records_of_one_apply_count_down(store: BankStore) -> None:
    records = store.bank("c1").apply([add("a"), add("b"), Operation(kind="DELETE", entry_id="1")], heard())
    assert [(record.sequence, record.num_following) for record in records] == [(1, 2), (2, 1), (3, 0)]


def test_records_are_on_the_disk_before_apply_returns(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path)) as store:
        records = store.bank("c1").apply([add("a"), add("b")], heard())
        assert read_journal(tmp_path / "journal.jsonl") == records


@pytest.mark.parametrize("text", ["é" * 5000, "word " * 4000, "👩‍👩‍👧 一二三 \u202e", "\t\r\n x", '"}]}'])
def test_any_text_comes_back_as_it_was(open_bank_store: Opener, tmp_path: Path, text: str) -> None:
    with closing(open_bank_store(tmp_path)) as store:
        store.bank("c1").apply([add(text)], heard())
    with closing(open_bank_store(tmp_path)) as store:
        assert texts(store.bank("c1").retrieve(text, speaker=None, limit=1)) == [text]


def test_more_entries_than_one_write_or_page_takes_are_all_there(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path)) as store:
        with store.group_commits():
            store.bank("c1").apply([add(f"fact number {number}") for number in range(2100)], heard())
        expected = store.bank("c1").retrieve("fact number 1234", speaker=None, limit=20)
        store.bank("c1").apply([Operation(kind="DELETE", entry_id=str(number)) for number in range(1, 601)], heard())
    with closing(open_bank_store(tmp_path)) as store:
        assert [entry.id for entry in store.bank("c1").entries()] == [*map(str, range(601, 2101))]
        found = store.bank("c1").retrieve("fact number 1234", speaker=None, limit=1)
        assert found == expected[:1]


def test_stores_in_two_folders_share_nothing(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path / "a")) as one, closing(open_bank_store(tmp_path / "b")) as other:
        one.bank("c1").apply([add("one")], heard())
        other.bank("c1").apply([add("other"), add("another")], heard())
    for folder, expected in (("a", ["one"]), ("b", ["other", "another"])):
        with closing(open_bank_store(tmp_path / folder)) as store:
            assert texts(store.bank("c1").entries()) == expected
            assert len(store.bank("c1").retrieve("one", speaker=None, limit=9)) == len(expected)


def test_a_folder_may_be_moved(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path / "a")) as store:
        change_three_scopes(store)
        before = state(store)
    (tmp_path / "a").rename(tmp_path / "b")
    with closing(open_bank_store(tmp_path / "b")) as store:
        assert state(store) == before


def test_an_apply_that_a_crash_cut_short_never_happened(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path)) as store:
        store.bank("c1").apply([add("Marta lives in Lisbon")], heard())
        before = state(store)
        store.bank("c1").apply([Operation(kind="UPDATE", entry_id="1", text="cut"), add("cut too")], heard())
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    for _ in range(2):
        with closing(open_bank_store(tmp_path)) as store:
            assert len(store.bank("c1").retrieve("cut", speaker=None, limit=9)) == 1
            assert store.bank("c1").entries() == before[0][1] and store.bank("c1").journal() == before[0][2]


def test_damage_inside_the_journal_is_refused_and_named(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path)) as store:
        change_three_scopes(store)
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"damage\n", *lines[3:]]))
    with pytest.raises(BankError, match=r"journal\.jsonl:3"):
        open_bank_store(tmp_path)


def test_groups_may_be_nested(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path)) as store:
        with store.group_commits():
            store.bank("c1").apply([add("a")], heard())
            with store.group_commits():
                store.bank("c2").apply([add("b")], heard())
            store.bank("c1").apply([Operation(kind="DELETE", entry_id="1"), add("c")], heard())
        before = state(store)
    with closing(open_bank_store(tmp_path)) as store:
        assert state(store) == before


def test_threads_may_change_and_read_one_store(open_bank_store: Opener, tmp_path: Path) -> None:
    with closing(open_bank_store(tmp_path / "bank")) as store, ThreadPoolExecutor(8) as pool:

        def live(number: int) -> None:
            scope = f"c{number % 2}"
            with store.group_commits() if number % 3 == 0 else nullcontext():
                store.bank(scope).apply([add(f"Marta lives in house {number}")], heard())
            assert f"Marta lives in house {number}" in {
                entry.text for entry in store.bank(scope).retrieve("Where does Marta live?", speaker=None, limit=99)
            }

        list(pool.map(live, range(40)))
    with closing(open_bank_store(tmp_path / "bank")) as store:
        for scope, first in (("c0", 0), ("c1", 1)):
            held = {entry.text for entry in store.bank(scope).entries()}
            assert held == {f"Marta lives in house {number}" for number in range(first, 40, 2)}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_history_equals_the_reference_bank(
    open_bank_store: Opener, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Entries, journal and retrieval order after hostile histories in two scopes, before and after reopening."""
    folder = tmp_path_factory.mktemp("bank")
    scopes = data.draw(st.lists(hostile_text, min_size=2, max_size=2, unique=True))
    references = {scope: InMemoryBank(scope, HashEmbedder()) for scope in scopes}
    with closing(open_bank_store(folder)) as store:
        for _ in range(data.draw(st.integers(0, 8))):
            scope, source = data.draw(st.sampled_from(scopes)), draw_source(data)
            operations = draw_operations(data, references[scope], source)
            records = references[scope].apply(operations, source)
            assert store.bank(scope).apply(operations, source) == records
        query = data.draw(hostile_text)
        for scope, reference in references.items():
            assert_same(store.bank(scope), reference, query)
    with closing(open_bank_store(folder)) as store:
        for scope, reference in references.items():
            assert_same(store.bank(scope), reference, query)


def draw_source(data: st.DataObject) -> Source:
    return heard(data.draw(hostile_text), data.draw(st.sampled_from(HOSTILE)), data.draw(st.integers(1, 28)))


def draw_operations(data: st.DataObject, bank: MemoryBank, source: Source) -> list[Operation]:
    entries = bank.entries()
    first = len(bank.journal()) + 1
    operations: list[Operation] = []
    for number in range(data.draw(st.integers(0, 4))):
        operation = draw_operation(data, [entry.id for entry in entries])
        operations.append(operation)
        entries = apply_operation(entries, operation, source, scope=bank.scope, sequence=first + number)
    return operations


def draw_operation(data: st.DataObject, ids: list[str]) -> Operation:
    kinds = ["ADD", "NOOP", "UPDATE", "DELETE"] if ids else ["ADD", "NOOP"]
    kind = data.draw(st.sampled_from(kinds))
    text = data.draw(hostile_text.filter(str.strip)) if kind in ("ADD", "UPDATE") else ""
    entry_id = data.draw(st.sampled_from(ids)) if kind in ("UPDATE", "DELETE") else ""
    return Operation.model_validate({"kind": kind, "text": text, "entry_id": entry_id})


def assert_same(bank: MemoryBank, reference: MemoryBank, query: str) -> None:
    assert bank.entries() == reference.entries() == fold_journal(bank.journal(), bank.scope)
    assert bank.journal() == reference.journal()
    for speaker in {None, *(entry.speaker for entry in reference.entries())}:
        expected = reference.retrieve(query, speaker=speaker, limit=5)
        assert bank.retrieve(query, speaker=speaker, limit=5) == expected


def tell_of_a_town(bank: MemoryBank) -> None:
    """48 entries that share most of their words; some are changed, some removed and replaced."""
    verbs = ("lives in", "moved to", "walks a dog in", "drinks tea in", "once lived in", "has an aunt in", "likes")
    for number in range(48):
        who = PEOPLE[number % 2]
        sentence = f"{who} {verbs[number % 7]} {PLACES[number % 4]}" + " again" * (number % 3)
        bank.apply([add(sentence)], heard(f"D1:{number}", speaker=who))
    bank.apply([Operation(kind="UPDATE", entry_id="7", text="Marta moved to Rome with a dog")], heard("D2:1"))
    bank.apply([Operation(kind="DELETE", entry_id="9"), add("Marta sold the dog")], heard("D2:2"))


def change_three_scopes(store: BankStore) -> None:
    for scope in ("c1", "c2", "user 'three'"):
        bank = store.bank(scope)
        records = bank.apply([add("Marta lives in Lisbon"), add("Marta has a dog")], heard())
        bank.apply([Operation(kind="UPDATE", entry_id=str(records[0].sequence), text="Marta lives in Rome")], heard())
        bank.apply([Operation(kind="DELETE", entry_id=str(records[1].sequence))], heard())
        bank.apply([], heard())


def state(store: BankStore) -> list[tuple[str, list[MemoryEntry], list[JournalRecord], list[MemoryEntry]]]:
    return [
        (
            scope,
            store.bank(scope).entries(),
            store.bank(scope).journal(),
            store.bank(scope).retrieve("Rome", speaker=None, limit=9),
        )
        for scope in store.scopes()
    ]
