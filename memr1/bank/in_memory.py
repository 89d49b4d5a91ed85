"""The reference bank: entries in this process, and, when a folder is given, its journal on disk.

It is the inner loop of training, where a bank is made, asked a few questions and thrown away thousands of times: so
nothing is embedded or counted before the first retrieval.

Threads may share a store: its banks are changed by one thread at a time, and read while another changes them. A bank
without a store belongs to one thread.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np

from memr1.bank.bank import fold_journal, record_operations
from memr1.bank.embedding import Embedder, Vectors
from memr1.bank.entry import MemoryEntry
from memr1.bank.journal import JournalFile, records_by_scope
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.bank.retrieval import EntryIndex, embedded_part
from memr1.errors import BankError, BankUnavailable

JOURNAL_NAME = "journal.jsonl"
Commit = Callable[[Sequence[JournalRecord]], None]
LoadVectors = Callable[[str], Mapping[str, Vectors]]


class InMemoryBank:
    """See `memr1.bank.bank.MemoryBank`."""

    def __init__(
        self,
        scope: str,
        embedder: Embedder,
        *,
        entries: Sequence[MemoryEntry] = (),
        journal: Sequence[JournalRecord] = (),
        commit: Commit | None = None,
        load_vectors: LoadVectors | None = None,
        changing: AbstractContextManager[object] | None = None,
    ) -> None:
        """Start from `entries` (whose past is not known) or from a whole `journal`, not from both.

        `commit` makes records durable before they take effect. `load_vectors` gives, for the scope, vectors by text
        that need not be computed again; it is called at the first retrieval. `changing` is held during a change, so
        that no two threads give the same number to a record.
        """
        for entry in entries:
            if entry.scope != scope:
                raise BankError(f"entry {entry.id!r} belongs to scope {entry.scope!r}, not to {scope!r}")
        self.scope = scope
        self._embedder = embedder
        self._journal = list(journal)
        self._entries = fold_journal(journal, scope) if journal else list(entries)
        self._commit = commit
        self._load_vectors = load_vectors
        self._changing: AbstractContextManager[object] = changing or nullcontext()
        self._vectors: Mapping[str, Vectors] = {}
        self._indexed: tuple[Sequence[MemoryEntry], EntryIndex] | None = None  # made at the first retrieval afterwards

    def entries(self, speaker: str | None = None) -> list[MemoryEntry]:
        """All entries in the order in which they were added, or those of one speaker."""
        return [entry for entry in self._entries if speaker is None or entry.speaker == speaker]

    def apply(self, operations: Sequence[Operation], source: Source) -> list[JournalRecord]:
        """Apply all operations or none; raises UnknownEntry, BankError or BankUnavailable, the bank unchanged."""
        with self._changing:
            entries, records = record_operations(
                self._entries, operations, source, scope=self.scope, sequence=self._next_sequence()
            )
            if self._commit is not None:
                self._commit(records)
            self._entries = entries  # another list: a retrieval that goes on in another thread keeps the former
            self._journal.extend(records)
            return records

    def retrieve(self, query: str, *, speaker: str | None, limit: int) -> list[MemoryEntry]:
        """At most `limit` entries (of one speaker, or of all), best first."""
        entries, indexed = self._entries, self._indexed
        if not entries:
            return []
        if indexed is None or indexed[0] is not entries:
            self._indexed = indexed = entries, EntryIndex(entries, self._embed(entries))
        vector = self._embedder.embed([embedded_part(query, {entry.speaker for entry in entries})])[0]
        return indexed[1].rank(query, vector, speaker=speaker, limit=limit)

    def journal(self) -> list[JournalRecord]:
        """Every record since the bank began (or since the entries it was given), oldest first."""
        return list(self._journal)

    def _next_sequence(self) -> int:
        if self._journal:
            return self._journal[-1].sequence + 1
        return 1 + max((int(entry.id) for entry in self._entries), default=0)

    def _embed(self, entries: Sequence[MemoryEntry]) -> Vectors:
        """One row per entry; what is known already is not computed again."""
        load = self._load_vectors
        if load is not None:
            self._vectors, self._load_vectors = load(self.scope), None
        unknown = [entry.text for entry in entries if entry.text not in self._vectors]
        if len(unknown) == len(entries):
            return self._embedder.embed(unknown)
        computed = dict(zip(unknown, self._embedder.embed(unknown), strict=True))
        return np.stack([computed[e.text] if e.text in computed else self._vectors[e.text] for e in entries])


class InMemoryStore:
    """See `memr1.bank.bank.BankStore`. With a folder it continues from the journal that it finds there."""

    def __init__(
        self, embedder: Embedder, folder: Path | None = None, *, load_vectors: LoadVectors | None = None
    ) -> None:
        """`load_vectors`: see `InMemoryBank`.

        Raises BankUnavailable for a folder that cannot be written or is in use, BankError for a damaged journal.
        """
        self._embedder = embedder
        self._load_vectors = load_vectors
        self._file = JournalFile(folder / JOURNAL_NAME) if folder is not None else None
        self._records = records_by_scope(self._file.records if self._file is not None else ())
        self._banks: dict[str, InMemoryBank] = {}
        self._closed = False
        self.changing = threading.RLock()  # held by the thread that changes a bank, or has a group of commits open

    def bank(self, scope: str) -> InMemoryBank:
        """The bank of a scope; an unknown scope's is empty."""
        with self.changing:
            if scope not in self._banks:
                self._banks[scope] = InMemoryBank(
                    scope,
                    self._embedder,
                    journal=self._records.get(scope, []),
                    commit=self._commit,
                    load_vectors=self._load_vectors,
                    changing=self.changing,
                )
            return self._banks[scope]

    def scopes(self) -> list[str]:
        """Every scope that has a journal, in the order of their first records."""
        return list(self._records)

    @contextmanager
    def group_commits(self) -> Iterator[None]:
        """One disk sync for everything applied inside the block."""
        with self.changing, self._file.group_commits() if self._file is not None else nullcontext():
            yield

    def close(self) -> None:
        """Let go of the journal; may be called twice."""
        with self.changing:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def _commit(self, records: Sequence[JournalRecord]) -> None:
        if self._closed:
            raise BankUnavailable("the bank store is closed: open it again")
        if self._file is not None:
            self._file.append(records)
        self._records.setdefault(records[0].scope, []).extend(records)
