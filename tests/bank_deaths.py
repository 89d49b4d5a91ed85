"""Work on a bank in a process that dies, by SIGKILL, at a moment that a seed chooses.

A moment is whatever could leave something half done: opening a file to write to it, renaming, cutting or removing one,
writing (part of it is on the disk then), syncing, and embedding, which is what a store does before it writes its table.
At every second moment the kill comes up to 30 ms later: inside LanceDB, whose files Python does not see.

The processes are forked from one that has imported everything and done nothing.
"""

import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import memr1.bank.lancedb_bank  # noqa: F401  imported once, before the forks
from memr1.agents.bank_builder import build_banks
from memr1.agents.fact_extractor import TurnExtractor
from memr1.bank.bank import BankStore
from memr1.bank.embedding import HashEmbedder, Vectors
from memr1.bank.exchange import export_bank, import_bank
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.journal import read_journal
from memr1.bank.lancedb_bank import LanceStore
from tests.bank_histories import ChangingManager, apply_step
from tests.builders import conversation

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])
PATIENCE_SECONDS = 300.0  # for one process on a busy machine
WATCHED = {"open", "os.rename", "os.truncate", "os.mkdir", "os.rmdir", "os.remove"}
WRITING = os.O_WRONLY | os.O_RDWR
LATEST_SECONDS = 0.03
NUM_TURNS, NUM_STEPS = 15, 60
CONVERSATIONS = [
    conversation(
        name,
        [("Ann" if place % 2 else "Bob", f"{name} tells of thing {place}") for place in range(NUM_TURNS - number)],
        turns_per_session=8,
    )
    for number, name in enumerate(("c1", 'it\'s "two"', "c3"))
]
warnings.filterwarnings("ignore", message="lancedb fork support")  # which is what is used here


class Fate:
    """Counts moments down to the last one; 0 moments never come to an end."""

    def __init__(self, seed: int, num_moments: int) -> None:
        self._chance = random.Random(seed)
        self._left = num_moments
        self._write, self._sync = os.write, os.fsync

    def take_hold(self) -> None:
        """From here on this process may die. Nothing lets go of it again."""
        os.write, os.fsync = self._write_or_die, self._sync_or_die  # type: ignore[assignment]
        sys.addaudithook(self._watch)

    def reach_moment(self) -> None:
        """One moment less; the last one is now, or a little later."""
        self._left -= 1
        if self._left == 0:
            if self._chance.random() < 0.5:
                die()
            threading.Timer(self._chance.uniform(0.0, LATEST_SECONDS), die).start()

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and (event != "open" or arguments[2] & WRITING):
            self.reach_moment()

    def _write_or_die(self, handle: int, data: Any) -> int:
        if self._left == 1:
            self._write(handle, bytes(data)[: self._chance.randint(0, len(data))])
            die()
        self.reach_moment()
        return self._write(handle, data)

    def _sync_or_die(self, handle: int) -> None:
        self.reach_moment()
        self._sync(handle)


class DyingEmbedder(HashEmbedder):
    """Every embedding is a moment."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(32)
        self._fate = fate

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `HashEmbedder.embed`."""
        self._fate.reach_moment()
        return super().embed(texts)


def die() -> None:
    """At once, as `kill -9` does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def run_to_its_end_or_death(target: Callable[..., None], *arguments: Any) -> bool:
    """Whether `target` came to its end in a process of its own. An AssertionError when it failed otherwise."""
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    process.join(PATIENCE_SECONDS)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode in (0, -signal.SIGKILL), f"exit code {process.exitcode}: see its output"
    return process.exitcode == 0


def build_on_lancedb(
    folder: Path, seed: int, num_moments: int, promised: Any, rows_per_write: int, conversations_at_once: int
) -> None:
    """Build the banks of CONVERSATIONS, or what of them is missing; `promised` counts turns that are in the bank."""
    fate = Fate(seed, num_moments)
    fate.take_hold()
    embedder = DyingEmbedder(fate)
    with closing(LanceStore(folder, embedder, rows_per_write=rows_per_write)) as store:
        build_all(store, embedder, promised, conversations_at_once)


def build_all(store: BankStore, embedder: HashEmbedder, promised: Any = None, conversations_at_once: int = 256) -> None:
    """Build the banks of CONVERSATIONS, or what of them is missing."""

    def keep_promise(num_read: int, num_turns: int) -> None:
        if promised is not None:
            promised.value = num_read

    build_banks(
        CONVERSATIONS,
        ChangingManager(),
        TurnExtractor(),
        store,
        entries_per_turn=3,
        embedder=embedder,
        on_step=keep_promise,
        conversations_at_once=conversations_at_once,
    )


def write_journal(folder: Path, seed: int, num_moments: int, promised: Any) -> None:
    """Apply what is missing of NUM_STEPS steps, every fourth three in one group; `promised` counts applied ones."""
    Fate(seed, num_moments).take_hold()
    with closing(InMemoryStore(HashEmbedder(8), folder)) as store:
        step = count_turns(folder)
        while step < NUM_STEPS:
            last = min(NUM_STEPS, step + 3) if step % 4 == 0 else step + 1
            with store.group_commits() if last > step + 1 else nullcontext():
                for each in range(step, last):
                    apply_step(store, each)
            step = last
            promised.value = step


def export_to(place: Path, file: Path, num_moments: int) -> None:
    """Export, once."""
    Fate(num_moments, num_moments).take_hold()
    export_bank(place, file)


def import_from(file: Path, folder: Path, num_moments: int) -> None:
    """Import, once."""
    Fate(num_moments, num_moments).take_hold()
    import_bank(file, folder)


def count_turns(folder: Path) -> int:
    """Turns that left a record in a store's journal."""
    return len({(record.scope, record.source.turn_id) for record in read_journal(folder / "journal.jsonl")})
