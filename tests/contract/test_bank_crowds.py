"""Many writers at once, threads of one process or processes in turn: nothing is lost, doubled or out of order."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from memr1.bank import shelf
from memr1.bank.bank import BankStore
from memr1.bank.embedding import HashEmbedder
from memr1.bank.stores import open_store
from memr1.config import BankConfig, InMemoryBank, LanceBank
from tests.bank_crowds import assert_nothing_is_lost, write_share, write_share_from_process
from tests.bank_deaths import FORKS, PATIENCE_SECONDS

Opener = Callable[[Path], BankStore]
ONE_SCOPE = ["c1"]
MANY_SCOPES = [f"c{number}" for number in range(64)]


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads change over a thousand times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless_threads")
@pytest.mark.parametrize(
    ("num_writers", "num_operations", "scopes"),
    [
        (4, 24, ONE_SCOPE),
        (8, 12, MANY_SCOPES[:8]),
        pytest.param(8, 500, ONE_SCOPE, marks=pytest.mark.slow),
        pytest.param(64, 60, MANY_SCOPES, marks=pytest.mark.slow),
    ],
    ids=["few", "few_in_many_scopes", "eight_times_500", "64_in_64_scopes"],
)
def test_threads_that_write_at_once_lose_and_double_nothing(
    open_bank_store: Opener, tmp_path: Path, num_writers: int, num_operations: int, scopes: list[str]
) -> None:
    with closing(open_bank_store(tmp_path / "bank")) as store, ThreadPoolExecutor(num_writers + 1) as threads:
        written = Event()
        reader = threads.submit(read_until, written, store, scopes)
        shares = [
            threads.submit(write_share, store, writer, range(num_operations), scopes) for writer in range(num_writers)
        ]
        try:
            for share in shares:
                share.result()
        finally:
            written.set()
        reader.result()
        assert_nothing_is_lost(store, num_writers, num_operations, scopes)
    with closing(open_bank_store(tmp_path / "bank")) as store:
        assert_nothing_is_lost(store, num_writers, num_operations, scopes)


@pytest.mark.usefixtures("restless_threads")
def test_threads_lose_and_double_nothing_when_banks_are_let_go_of_all_the_time(
    open_bank_store: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "BANKS_KEPT", 1)
    test_threads_that_write_at_once_lose_and_double_nothing(open_bank_store, tmp_path, 8, 12, MANY_SCOPES[:8])


@pytest.mark.slow
@pytest.mark.parametrize("config", [InMemoryBank(kind="in_memory"), LanceBank()], ids=["in_memory", "lancedb"])
@pytest.mark.parametrize("scopes", [ONE_SCOPE, MANY_SCOPES], ids=["one_scope", "64_scopes"])
def test_processes_that_take_turns_lose_and_double_nothing(
    tmp_path: Path, config: BankConfig, scopes: list[str]
) -> None:
    num_writers, num_operations = 8, 500
    writers = [
        FORKS.Process(
            target=write_share_from_process, args=(config, tmp_path, writer, num_operations, 20 + 5 * writer, scopes)
        )
        for writer in range(num_writers)
    ]
    for process in writers:
        process.start()
    for process in writers:
        process.join(10 * PATIENCE_SECONDS)
    assert [process.exitcode for process in writers] == [0] * num_writers
    with closing(open_store(config, tmp_path, HashEmbedder())) as store:
        assert_nothing_is_lost(store, num_writers, num_operations, scopes)


def read_until(written: Event, store: BankStore, scopes: list[str]) -> None:
    """Nothing that a reader sees meanwhile belongs to another scope, or is half changed."""
    while not written.is_set():
        for scope in scopes:
            found = store.bank(scope).retrieve("count common own", speaker="Marta", limit=5)
            assert {entry.scope for entry in found} <= {scope}
            counts = [entry.text for entry in store.bank(scope).entries() if entry.text.startswith("count ")]
            assert len(counts) <= 1
            written.wait(0.001)
