"""What threads that share a store could do to each other, one moment at a time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from memr1.bank.embedding import HashEmbedder, Vectors
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.journal import read_journal
from memr1.bank.lancedb_bank import LanceStore
from memr1.bank.operation import Operation, Source

SOURCE = Source(turn_id="D1:1", speaker="Marta", time=datetime(2024, 5, 1), policy="test")
Store = InMemoryStore | LanceStore


class InterruptedEmbedder(HashEmbedder):
    """Before it embeds the next time, something else happens."""

    def __init__(self) -> None:
        super().__init__(16)
        self.interrupt: Callable[[], None] | None = None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `HashEmbedder.embed`."""
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            interrupt()
        return super().embed(texts)


@pytest.fixture
def embedder() -> InterruptedEmbedder:
    return InterruptedEmbedder()


@pytest.fixture(params=["in_memory", "lancedb"])
def store(request: pytest.FixtureRequest, embedder: InterruptedEmbedder, tmp_path: Path) -> Iterator[Store]:
    in_memory = request.param == "in_memory"
    with closing(InMemoryStore(embedder, tmp_path) if in_memory else LanceStore(tmp_path, embedder)) as opened:
        yield opened


def add(store: Store, text: str, scope: str = "c1") -> None:
    store.bank(scope).apply([Operation(kind="ADD", text=text)], SOURCE)


def in_another_thread(action: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(action).result(60)


def test_a_change_while_a_bank_is_being_read_is_found_by_the_next_reading(
    store: Store, embedder: InterruptedEmbedder
) -> None:
    add(store, "Marta has a dog")
    embedder.interrupt = lambda: in_another_thread(lambda: add(store, "Marta lives in Rome"))
    during = store.bank("c1").retrieve("Rome", speaker=None, limit=1)
    assert [entry.text for entry in during] == ["Marta has a dog"]
    assert [entry.text for entry in store.bank("c1").retrieve("Rome", speaker=None, limit=1)] == ["Marta lives in Rome"]


def test_reading_does_not_wait_for_a_group_of_another_thread(store: Store) -> None:
    add(store, "Marta has a dog")
    with store.group_commits():
        add(store, "Marta lives in Rome")
        in_another_thread(lambda: store.bank("c1").retrieve("dog", speaker=None, limit=1))
        in_another_thread(lambda: store.bank("c1").entries())


def test_a_change_waits_for_the_group_of_another_thread_and_is_on_the_disk_when_it_returns(
    store: Store, tmp_path: Path
) -> None:
    store.bank("c1")
    store.bank("c2")
    done = threading.Event()

    def change() -> list[str]:
        add(store, "other", "c2")
        done.set()
        return [record.operation.text for record in read_journal(tmp_path / "journal.jsonl")]

    with ThreadPoolExecutor(1) as threads:
        with store.group_commits():
            add(store, "one")
            other = threads.submit(change)
            assert not done.wait(0.2)
            add(store, "two")
        assert other.result(60) == ["one", "two", "other"]


def test_the_store_is_closed_only_between_changes(embedder: InterruptedEmbedder, tmp_path: Path) -> None:
    store = LanceStore(tmp_path, embedder, rows_per_write=1)
    closing_threads: list[threading.Thread] = []

    def close() -> None:
        closing_threads.append(threading.Thread(target=store.close))
        closing_threads[0].start()

    embedder.interrupt = close  # the table is about to be written
    add(store, "Marta lives in Rome")
    closing_threads[0].join(60)
    with closing(LanceStore(tmp_path, embedder)) as again:
        assert [entry.text for entry in again.bank("c1").entries()] == ["Marta lives in Rome"]
