"""What a store does not keep in memory, and how it comes back."""

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from weakref import ref

import lancedb
import pytest

from memr1.bank.bank import BankStore
from memr1.bank.embedding import Embedder, HashEmbedder
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.lancedb_bank import TABLE_NAME, LanceStore
from memr1.bank.mirrored import ROWS_AT_OPENING
from memr1.bank.operation import Operation, Source
from memr1.bank.shelf import BANKS_KEPT
from memr1.errors import BankUnavailable
from tests.bank_histories import CountingEmbedder

Open = Callable[[Path, Embedder], InMemoryStore | LanceStore]
MANY = [f"c{number}" for number in range(BANKS_KEPT + 1)]


def open_in_memory(folder: Path, embedder: Embedder) -> InMemoryStore:
    return InMemoryStore(embedder, folder)


@pytest.fixture(params=[open_in_memory, LanceStore], ids=["in_memory", "lancedb"])
def open_store(request: pytest.FixtureRequest) -> Open:
    opener: Open = request.param
    return opener


@pytest.fixture
def store(open_store: Open, tmp_path: Path) -> Iterator[BankStore]:
    with closing(open_store(tmp_path, HashEmbedder())) as opened:
        yield opened


def add(store: BankStore, scope: str, *texts: str) -> None:
    source = Source(turn_id="D1:1", speaker="Marta", time=datetime(2024, 5, 1), policy="test")
    store.bank(scope).apply([Operation(kind="ADD", text=text) for text in texts], source)


def ask_for_many(store: BankStore) -> None:
    for scope in MANY:
        store.bank(scope)


def test_a_bank_that_nobody_holds_is_let_go_of_and_comes_back_as_it_was(store: BankStore) -> None:
    add(store, "mine", "Marta lives in Rome", "Marta has a dog")
    bank = store.bank("mine")
    expected = bank.entries(), bank.journal(), bank.retrieve("Rome", speaker=None, limit=2)
    former = ref(bank)
    del bank
    ask_for_many(store)
    gc.collect()
    assert former() is None
    again = store.bank("mine")
    assert (again.entries(), again.journal(), again.retrieve("Rome", speaker=None, limit=2)) == expected
    add(store, "mine", "Marta has a cat")
    assert [record.sequence for record in again.journal()] == [1, 2, 3]


def test_a_bank_that_somebody_holds_stays_the_same_one(store: BankStore) -> None:
    held = store.bank("mine")
    ask_for_many(store)
    add(store, "mine", "Marta lives in Rome")
    assert store.bank("mine") is held
    assert [entry.text for entry in held.entries()] == ["Marta lives in Rome"]


def test_the_bank_that_was_asked_for_last_is_not_folded_for_every_change(store: BankStore) -> None:
    former = ref(store.bank("mine"))
    gc.collect()
    assert former() is store.bank("mine")


def test_a_store_without_a_journal_lets_go_of_nothing() -> None:
    store = InMemoryStore(HashEmbedder())
    add(store, "mine", "Marta lives in Rome")
    former = ref(store.bank("mine"))
    ask_for_many(store)
    gc.collect()
    assert former() is store.bank("mine")
    assert [record.operation.text for record in store.bank("mine").journal()] == ["Marta lives in Rome"]


def test_inside_a_group_a_bank_comes_back_with_what_is_not_on_the_disk_yet(store: BankStore, tmp_path: Path) -> None:
    add(store, "mine", "before")
    with store.group_commits():
        size = (tmp_path / "journal.jsonl").stat().st_size
        add(store, "mine", "inside")
        ask_for_many(store)
        gc.collect()
        assert (tmp_path / "journal.jsonl").stat().st_size == size
        assert [entry.text for entry in store.bank("mine").entries()] == ["before", "inside"]
        add(store, "mine", "more")
    assert [record.operation.text for record in store.bank("mine").journal()] == ["before", "inside", "more"]


def test_changes_of_banks_that_were_let_go_of_reach_the_table(tmp_path: Path) -> None:
    with closing(LanceStore(tmp_path, HashEmbedder())) as store:
        for scope in MANY:
            add(store, scope, f"{scope} begins", f"{scope} goes on")
            store.bank(scope).apply([Operation(kind="DELETE", entry_id="1")], store.bank(scope).journal()[0].source)
    assert sorted(table_texts(tmp_path)) == sorted(f"{scope} goes on" for scope in MANY)


def test_a_bank_that_comes_back_takes_its_vectors_from_the_table(tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    with closing(LanceStore(tmp_path, embedder, rows_per_write=1)) as store:
        add(store, "mine", "Marta lives in Rome")
        ask_for_many(store)
        gc.collect()
        embedder.texts.clear()
        store.bank("mine").retrieve("Where?", speaker=None, limit=1)
    assert embedder.texts == ["Where?"]


def test_a_large_table_is_built_again_in_portions(tmp_path: Path) -> None:
    scopes, texts = ["c1", "c2", "c3"], [f"fact {number}" for number in range(ROWS_AT_OPENING * 2 // 3)]
    with closing(InMemoryStore(HashEmbedder(8), tmp_path)) as store:
        for scope in scopes:
            add(store, scope, *texts)
    with closing(LanceStore(tmp_path, HashEmbedder(8))):
        assert len(table_texts(tmp_path)) == 2 * len(texts)
    assert len(table_texts(tmp_path)) == 3 * len(texts)


def test_a_journal_is_still_read_after_closing_but_not_once_it_is_gone(open_store: Open, tmp_path: Path) -> None:
    store = open_store(tmp_path / "bank", HashEmbedder())
    add(store, "mine", "Marta lives in Rome")
    bank = store.bank("mine")
    store.close()
    assert [record.operation.text for record in bank.journal()] == ["Marta lives in Rome"]
    shutil.rmtree(tmp_path / "bank")
    with pytest.raises(BankUnavailable, match="cannot read the journal"):
        bank.journal()


def table_texts(folder: Path) -> list[str]:
    return [row["text"] for row in lancedb.connect(folder).open_table(TABLE_NAME).search().to_list()]
