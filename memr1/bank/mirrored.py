"""A bank store whose entries are kept a second time: in a table, on a server.

The journal is the truth, and ranking happens in this process, over the vectors of one scope, by the code that every
bank kind shares: the order is then the same for all of them. The **mirror** is derived. It is written behind the
journal and brought back in line with it when the store is opened, so that a crash at any point changes nothing. It
saves embedding a bank again, and other programs can read it.

Left out: a bank (of one scope) that is larger than memory.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

from memr1.bank.embedding import Embedder, Vectors
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryBank, InMemoryStore
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.bank.shelf import BankShelf
from memr1.errors import BankError, BankUnavailable

log = logging.getLogger(__name__)
Key = tuple[str, str]  # scope, entry id
ROWS_AT_OPENING = 2_048  # that differ: fewer wait for the next change, or for the end


class Mirror(Protocol):
    """One row per entry of all scopes."""

    def take_digests(self) -> dict[Key, str]:
        """`entry_digest` of every row, as the mirror was found when it was opened. To be asked for once."""
        ...

    def vectors(self, scope: str) -> Mapping[str, Vectors]:
        """Text → vector, for the rows of a scope; none when they cannot be read."""
        ...

    def write(self, entries: Sequence[MemoryEntry], vectors: Vectors, stale: Sequence[Key]) -> None:
        """Write the rows of these entries, and drop all others with the keys in `stale`. Raises BankError.

        A key that has a row already is in `stale`, whether it is written anew or not; one without a row may be.
        """
        ...

    def wait(self) -> None:
        """After a write failed: return once another may succeed. Raises BankUnavailable when that takes too long."""
        ...

    def close(self) -> None:
        """Let go of it. Raises BankUnavailable."""
        ...


class MirroredStore:
    """See `memr1.bank.bank.BankStore`."""

    def __init__(
        self,
        folder: Path,
        embedder: Embedder,
        open_mirror: Callable[[], Mirror],
        *,
        rows_per_write: int,
        wait_seconds: float = 0.0,
    ) -> None:
        """`rows_per_write` changed entries wait before the mirror is written; a group of commits is never cut.

        A folder that another process has open is waited for `wait_seconds`. Raises BankUnavailable for a folder that
        cannot be written or is in use, BankError for a damaged journal, and what `open_mirror` raises.
        """
        self._embedder = embedder
        self._rows_per_write = rows_per_write
        self._memory = InMemoryStore(
            embedder, folder, wait_seconds=wait_seconds, load_vectors=lambda scope: self._mirror.vectors(scope)
        )
        self.changing = self._memory.changing  # of the mirror, too
        self._banks: BankShelf[MirroredBank] = BankShelf()
        self._changed: dict[Key, MemoryEntry | None] = {}  # rows to be written, or removed
        self._new: set[Key] = set()  # of these, the keys that surely have no row
        self._in_group = self._fell_behind = self._closed = False
        with ExitStack() as opened:
            opened.callback(self._memory.close)
            self._mirror = open_mirror()
            opened.callback(self._mirror.close)
            self._find_differences()
            opened.pop_all()  # nothing failed: all of it stays open

    def bank(self, scope: str) -> "MirroredBank":
        """The bank of a scope; an unknown scope's is empty. Raises BankError for a scope that is not Unicode."""
        return self._banks.bank(scope, lambda scope: MirroredBank(self._memory.bank(scope), self))

    def scopes(self) -> list[str]:
        """Every scope that has a journal, in the order of their first records."""
        return self._memory.scopes()

    @contextmanager
    def group_commits(self) -> Iterator[None]:
        """One disk sync of the journal and at most one write of the mirror for everything applied inside the block."""
        with self.changing:
            outer, self._in_group = self._in_group, True
            try:
                with self._memory.group_commits():
                    yield
            finally:
                self._in_group = outer
                self._follow(self._rows_per_write)

    def close(self) -> None:
        """Bring the mirror up to the journal and let go of both; may be called twice. Raises BankError."""
        with self.changing:
            if self._closed:
                return
            self._closed = True
            with closing(self._memory), closing(self._mirror):
                self._catch_up()

    def prepare_change(self) -> None:
        """Refuse a change while the mirror cannot follow the last one. Raises BankError; nothing has changed then."""
        if self._fell_behind and not self._closed:
            self._catch_up()

    def follow(self, records: Iterable[JournalRecord]) -> None:
        """Remember which rows the records made stale, and write them once there are enough."""
        for record in records:
            changed = record.after or record.before
            if changed is not None:
                key = changed.scope, changed.id
                if record.before is None and key not in self._changed:
                    self._new.add(key)
                self._changed[key] = record.after
        self._follow(self._rows_per_write)

    def _follow(self, num_rows: int) -> None:
        """Write the mirror, once so many rows have changed."""
        if self._in_group or len(self._changed) < num_rows:
            return
        try:
            self._write()
        except BankError as error:
            # The operations are in the journal already: to fail here would make the caller apply them twice.
            log.warning("%s. The journal has everything; the next change waits until this is written", error)
            self._fell_behind = True

    def _catch_up(self) -> None:
        if not self._fell_behind:
            try:
                return self._write()
            except BankUnavailable:
                self._fell_behind = True
        self._mirror.wait()
        return self._write()

    def _write(self) -> None:
        """Bring the mirror up to the journal. Raises BankError; the journal then still has everything."""
        entries = [entry for entry in self._changed.values() if entry is not None]
        stale = [key for key in self._changed if key not in self._new]
        self._new.clear()  # should this fail, they may have rows all the same
        if self._changed:
            self._mirror.write(entries, self._embedder.embed([entry.text for entry in entries]), stale)
        self._changed.clear()
        self._fell_behind = False

    def _find_differences(self) -> None:
        """Rows that the mirror lacks, has in another wording, or has too many. When they are many they are written at
        once, so that they need not all be in memory."""
        present, num_different = self._mirror.take_digests(), 0
        for scope in self._memory.scopes():
            for entry in self._memory.bank(scope).entries():
                key = scope, entry.id
                found = present.pop(key, None)
                if found != entry_digest(entry):
                    self._changed[key] = entry
                    if found is None:
                        self._new.add(key)
                    num_different += 1
            if not self._fell_behind:
                self._follow(max(self._rows_per_write, ROWS_AT_OPENING))
        self._changed.update(dict.fromkeys(present))
        if num_different or present:
            log.info("%d stored rows differ from the journal: written again", num_different + len(present))


class MirroredBank:
    """See `memr1.bank.bank.MemoryBank`. The working set is an in-memory bank; the mirror follows it."""

    def __init__(self, memory: InMemoryBank, store: MirroredStore) -> None:
        self.scope = memory.scope
        self._memory = memory
        self._store = store

    def entries(self, speaker: str | None = None) -> list[MemoryEntry]:
        """All entries in the order in which they were added, or those of one speaker."""
        return self._memory.entries(speaker)

    def apply(self, operations: Sequence[Operation], source: Source) -> list[JournalRecord]:
        """Apply all operations or none; raises UnknownEntry, BankError or BankUnavailable, the bank unchanged."""
        with self._store.changing:
            self._store.prepare_change()
            records = self._memory.apply(operations, source)
            self._store.follow(records)
        return records

    def retrieve(self, query: str, *, speaker: str | None, limit: int) -> list[MemoryEntry]:
        """At most `limit` entries (of one speaker, or of all), best first."""
        return self._memory.retrieve(query, speaker=speaker, limit=limit)

    def journal(self) -> list[JournalRecord]:
        """Every record of the scope, oldest first."""
        return self._memory.journal()


def entry_digest(entry: MemoryEntry) -> str:
    """Changes with every field of the entry."""
    return key_digest(entry.model_dump_json())


def key_digest(*parts: str) -> str:
    """Hexadecimal, so that it can stand in a filter or a name whatever the parts are."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def cut_into_calls(sizes: Sequence[int], max_rows: int, max_bytes: int) -> Iterator[slice]:
    """Rows of these sizes, in order, cut into calls that stay within both limits; a larger row gets one of its own."""
    start = total = 0
    for place, size in enumerate(sizes):
        if place > start and (place - start == max_rows or total + size > max_bytes):
            yield slice(start, place)
            start, total = place, 0
        total += size
    if sizes:
        yield slice(start, len(sizes))
