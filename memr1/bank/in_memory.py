"""The reference bank: entries in this process, and, when a folder is given, its journal on disk.

It is the inner loop of training, where a bank is made, asked a few questions and thrown away thousands of times: so
nothing is embedded or counted before the first retrieval.

With a folder the memory that a store takes does not grow with its scopes: a bank that nobody holds is let go of, and
folded from the journal's file when it is asked for again. Threads may share a store. Changes take turns, whatever their
scopes; reading waits for no change.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np

from memr1.bank.bank import check_scope, fold_journal, record_operations
from memr1.bank.embedding import Embedder, Vectors
from memr1.bank.entry import MemoryEntry
from memr1.bank.journal import JournalFile, records_by_scope
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.bank.retrieval import EntryIndex, build_index, embedded_part
from memr1.bank.shelf import BankShelf
from memr1.errors import BankError, BankUnavailable

JOURNAL_NAME = "journal.jsonl"
LoadVectors = Callable[[str], Mapping[str, Vectors]]


class Journal(Protocol):
    """The records of many scopes, each scope's oldest first."""

    def scopes(self) -> list[str]:
        """Every scope that has a record, in the order of their first ones."""
        ...

    def read(self, scope: str) -> list[JournalRecord]:
        """The records of a scope. Raises BankError."""
        ...

    def append(self, records: Sequence[JournalRecord]) -> None:
        """Make the records durable. Raises BankError, or BankUnavailable once it is closed."""
        ...

    def group_commits(self) -> AbstractContextManager[None]:
        """Make everything appended inside the block durable at its end."""
        ...

    def close(self) -> None:
        """Take no more; may be called twice."""
        ...


class MemoryJournal:
    """A journal that is in no file, and lasts as long as whoever has it."""

    def __init__(self, records: Sequence[JournalRecord] = ()) -> None:
        self._records = records_by_scope(records)
        self._closed = False

    def scopes(self) -> list[str]:
        """See `Journal`."""
        return list(self._records)

    def read(self, scope: str) -> list[JournalRecord]:
        """See `Journal`."""
        return list(self._records.get(scope, ()))

    def append(self, records: Sequence[JournalRecord]) -> None:
        """See `Journal`."""
        if self._closed:
            raise BankUnavailable("the bank store is closed: open it again")
        self._records.setdefault(records[0].scope, []).extend(records)

    def group_commits(self) -> AbstractContextManager[None]:
        """See `Journal`."""
        return nullcontext()

    def close(self) -> None:
        """See `Journal`."""
        self._closed = True


class InMemoryBank:
    """See `memr1.bank.bank.MemoryBank`."""

    def __init__(
        self,
        scope: str,
        embedder: Embedder,
        *,
        entries: Sequence[MemoryEntry] = (),
        journal: Sequence[JournalRecord] | Journal = (),
        load_vectors: LoadVectors | None = None,
        changing: AbstractContextManager[object] | None = None,
    ) -> None:
        """Start from `entries` (whose past is not known) or from a whole `journal`, not from both.

        A journal, where it is not a sequence of records, takes the bank's new ones before they take effect.
        `load_vectors` gives, for the scope, vectors by text that need not be computed again; it is called once, at the
        first retrieval. `changing` is held during a change.
        Raises BankError for entries of another scope and for a scope that is not Unicode.
        """
        check_scope(scope)
        for entry in entries:
            if entry.scope != scope:
                raise BankError(f"entry {entry.id!r} belongs to scope {entry.scope!r}, not to {scope!r}")
        self.scope = scope
        self._embedder = embedder
        self._journal = MemoryJournal(journal) if isinstance(journal, Sequence) else journal
        records = self._journal.read(scope)
        self._entries = fold_journal(records, scope) if records else list(entries)
        self._num_given = len(records) or max((int(entry.id) for entry in entries), default=0)  # sequence numbers
        self._load_vectors = load_vectors if records else None
        self._vectors: Mapping[str, Vectors] = {}
        self._index: EntryIndex | None = None  # made, and brought up to the entries, when it is needed
        self._changing = changing or threading.RLock()
        self._indexing = threading.Lock()

    def entries(self, speaker: str | None = None) -> list[MemoryEntry]:
        """All entries in the order in which they were added, or those of one speaker."""
        return [entry for entry in self._entries if speaker is None or entry.speaker == speaker]

    def apply(self, operations: Sequence[Operation], source: Source) -> list[JournalRecord]:
        """Apply all operations or none; raises UnknownEntry, BankError or BankUnavailable, the bank unchanged."""
        with self._changing:
            entries, records = record_operations(
                self._entries, operations, source, scope=self.scope, sequence=self._num_given + 1
            )
            self._journal.append(records)
            self._num_given += len(records)
            self._entries = entries  # another list: whoever reads the former one goes on with it
        return records

    def retrieve(self, query: str, *, speaker: str | None, limit: int) -> list[MemoryEntry]:
        """At most `limit` entries (of one speaker, or of all), best first."""
        entries = self._entries
        if not entries:
            return []
        query = query.encode("utf-8", "replace").decode()  # half a surrogate pair is nothing that can be looked for
        index = self._index_of(entries)
        vector = self._embedder.embed([embedded_part(query, index.speakers)])[0]
        return index.rank(query, vector, speaker=speaker, limit=limit)

    def journal(self) -> list[JournalRecord]:
        """Every record since the bank began (or since the entries it was given), oldest first."""
        return self._journal.read(self.scope)

    def _index_of(self, entries: list[MemoryEntry]) -> EntryIndex:
        """A change may come in while the index is being made: it is then of the former entries, and used no more."""
        with self._indexing:
            if self._index is None:
                self._index = build_index(entries, self._embed([entry.text for entry in entries]))
            elif self._index.entries is not entries:
                self._index = self._index.changed_to(entries, self._embed)
            return self._index

    def _embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text; what is known already is not computed again."""
        if self._load_vectors is not None:
            self._vectors, self._load_vectors = self._load_vectors(self.scope), None
        unknown = [text for text in texts if text not in self._vectors]
        if len(unknown) == len(texts):
            return self._embedder.embed(unknown)
        computed = dict(zip(unknown, self._embedder.embed(unknown), strict=True))
        return np.stack([computed[text] if text in computed else self._vectors[text] for text in texts])


class InMemoryStore:
    """See `memr1.bank.bank.BankStore`. With a folder it continues from the journal that it finds there."""

    def __init__(
        self,
        embedder: Embedder,
        folder: Path | None = None,
        *,
        wait_seconds: float = 0.0,
        load_vectors: LoadVectors | None = None,
    ) -> None:
        """`load_vectors`: see `InMemoryBank`. A folder that another process has open is waited for so long.

        Raises BankUnavailable for a folder that cannot be written or is in use, BankError for a damaged journal.
        """
        self.changing = threading.RLock()  # held during every change, and during a group of commits
        self._embedder = embedder
        self._load_vectors = load_vectors
        self._journal: Journal = MemoryJournal()
        if folder is not None:
            self._journal = JournalFile(folder / JOURNAL_NAME, wait_seconds=wait_seconds)
        self._banks: BankShelf[InMemoryBank] = BankShelf(keeps_all=folder is None)

    def bank(self, scope: str) -> InMemoryBank:
        """The bank of a scope; an unknown scope's is empty. Raises BankError for a scope that is not Unicode."""
        return self._banks.bank(scope, self._fold)

    def scopes(self) -> list[str]:
        """Every scope that has a journal, in the order of their first records."""
        return self._journal.scopes()

    @contextmanager
    def group_commits(self) -> Iterator[None]:
        """One disk sync for everything applied inside the block, and no change by another thread."""
        with self.changing, self._journal.group_commits():
            yield

    def close(self) -> None:
        """Let go of the journal; may be called twice."""
        with self.changing:
            self._journal.close()

    def _fold(self, scope: str) -> InMemoryBank:
        return InMemoryBank(
            scope, self._embedder, journal=self._journal, load_vectors=self._load_vectors, changing=self.changing
        )
