"""A real Weaviate server that is killed in the middle of a build. Runs where $WEAVIATE_BINARY names a server binary."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from memr1.agents.bank_builder import build_banks
from memr1.agents.fact_extractor import TurnExtractor
from memr1.bank.bank import BankStore
from memr1.bank.embedding import HashEmbedder
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.mirrored import entry_digest
from memr1.bank.weaviate_address import WeaviateAddress
from memr1.bank.weaviate_bank import WeaviateMirror, WeaviateStore, build_connection
from memr1.bank.weaviate_names import read_identity
from memr1.config import WeaviateBank
from memr1.errors import BankUnavailable
from tests.bank_histories import ChangingManager
from tests.builders import conversation
from tests.weaviate_process import BINARY, running_weaviate

pytestmark = [
    pytest.mark.service,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get(BINARY), reason=f"${BINARY} does not name a Weaviate server binary"),
]
OPTIONS = WeaviateBank(kind="weaviate")
PATIENT = OPTIONS.model_copy(update={"wait_seconds": 180.0})  # a busy machine takes long to start a server
NUM_TURNS, KILLED_AT = 30, 40  # turns of each of three conversations; turns read when the server is killed
CONVERSATIONS = [
    conversation(name, [("Ann" if place % 2 else "Bob", f"{name} says {place}") for place in range(NUM_TURNS)])
    for name in ("c1", "c2", "c3")
]
OnStep = Callable[[int, int], None]


def build(store: BankStore, on_step: OnStep | None = None) -> None:
    embedder = HashEmbedder()
    build_banks(
        CONVERSATIONS, ChangingManager(), TurnExtractor(), store, entries_per_turn=3, embedder=embedder, on_step=on_step
    )


def assert_undisturbed(folder: Path, address: WeaviateAddress) -> None:
    """The journal, and what lies on the server, are those of a build that nothing disturbed."""
    undisturbed = InMemoryStore(HashEmbedder())
    build(undisturbed)
    entries = {item.id: undisturbed.bank(item.id).entries() for item in CONVERSATIONS}
    with closing(build_connection(address, PATIENT)) as connection:
        on_server = WeaviateMirror(connection, PATIENT, read_identity(folder), HashEmbedder()).take_digests()
    assert on_server == {(item.scope, item.id): entry_digest(item) for each in entries.values() for item in each}
    with closing(InMemoryStore(HashEmbedder(), folder)) as store:
        for scope, expected in entries.items():
            assert store.bank(scope).entries() == expected
            assert store.bank(scope).journal() == undisturbed.bank(scope).journal()


def test_a_server_killed_in_a_build_and_back_after_twenty_seconds_is_waited_for(tmp_path: Path) -> None:
    with running_weaviate(tmp_path) as server:
        killed: list[float] = []

        def kill_once(read: int, total: int) -> None:
            if read >= KILLED_AT and not killed:
                server.kill()
                killed.append(time.monotonic())
                threading.Timer(20, server.start).start()

        with closing(WeaviateStore(tmp_path / "bank", HashEmbedder(), PATIENT, server.address)) as store:
            build(store, kill_once)
        assert time.monotonic() - killed[0] >= 20
        assert_undisturbed(tmp_path / "bank", server.address)


def test_a_server_that_stays_away_ends_the_build_and_the_repeated_one_goes_on(tmp_path: Path) -> None:
    with running_weaviate(tmp_path) as server:
        killed: list[float] = []

        def kill(read: int, total: int) -> None:
            if read >= KILLED_AT and not killed:
                server.kill()
                killed.append(time.monotonic())

        def open_store() -> WeaviateStore:
            return WeaviateStore(tmp_path / "bank", HashEmbedder(), OPTIONS, server.address)

        with pytest.raises(BankUnavailable), closing(open_store()) as store:
            build(store, kill)
        assert time.monotonic() - killed[0] <= 30
        server.start()
        server.wait_until_ready()
        with closing(open_store()) as store:
            build(store)
        assert_undisturbed(tmp_path / "bank", server.address)
