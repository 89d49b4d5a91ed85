"""The reference bank: entries in this process, and, when a folder is given, its journal on disk.

It is the inner loop of training, where a bank is made, asked a few questions and thrown away thousands of times: so
nothing is embedded or counted before the first retrieval.

Threads may share a store. Changes take turns, whatever their scopes; reading waits for no change.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np

from memr1.bank.bank import check_scope, fold_journal, record_operations
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
        that need not be computed again; it is called once, at the first retrieval. `changing` is held during a change.
        Raises BankError for entries of another scope and for a scope that is not Unicode.
        """
        check_scope(scope)
        for entry in entries:
            if entry.scope != scope:
                raise BankError(f"entry {entry.id!r} belongs to scope {entry.scope!r}, not to {scope!r}")
        self.scope = scope
        self._embedder = embedder
        self._journal = list(journal)
        self._entries = fold_journal(journal, scope) if journal else list(entries)
        self._commit = commit
        self._load_vectors = load_vectors
        self._vectors: Mapping[str, Vectors] = {}
        self._index: tuple[list[MemoryEntry], EntryIndex] | None = None  # of which entries; made when it is needed
        self._changing = changing or threading.RLock()
        self._indexing = threading.Lock()

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
            self._journal.extend(records)
            self._entries = entries  # another list: whoever reads the former one goes on with it
        return records

    def retrieve(self, query: str, *, speaker: str | None, limit: int) -> list[MemoryEntry]:
        """At most `limit` entries (of one speaker, or of all), best first."""
        entries = self._entries
        if not entries:
            return []
        query = query.encode("utf-8", "replace").decode()  # half a surrogate pair is nothing that can be looked for
        index = self._index_of(entries)
        vector = self._embedder.embed([embedded_part(query, {entry.speaker for entry in entries})])[0]
        return index.rank(query, vector, speaker=speaker, limit=limit)

    def journal(self) -> list[JournalRecord]:
        """Every record since the bank began (or since the entries it was given), oldest first."""
        return list(self._journal)

    def _next_sequence(self) -> int:
        if self._journal:
            return self._journal[-1].sequence + 1
        return 1 + max((int(entry.id) for entry in self._entries), default=0)

    def _index_of(self, entries: list[MemoryEntry]) -> EntryIndex:
        """A change may come in while the index is being made: it is then of the former entries, and used no more."""
        with self._indexing:
            if self._index is None or self._index[0] is not entries:
                self._index = entries, EntryIndex(entries, self._embed(entries))
            return self._index[1]

    def _embed(self, entries: Sequence[MemoryEntry]) -> Vectors:
        """One row per entry; what is known already is not computed again."""
        if self._load_vectors is not None:
            self._vectors, self._load_vectors = self._load_vectors(self.scope), None
        unknown = [entry.text for entry in entries if entry.text not in self._vectors]
        if len(unknown) == len(entries):
            return self._embedder.embed(unknown)
        computed = dict(zip(unknown, self._embedder.embed(unknown), strict=True))
        return np.stack([computed[e.text] if e.text in computed else self._vectors[e.text] for e in entries])


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
        self._file = JournalFile(folder / JOURNAL_NAME, wait_seconds=wait_seconds) if folder is not None else None
        self._records = records_by_scope(self._file.records if self._file is not None else ())
        self._banks: dict[str, InMemoryBank] = {}
        self._closed = False

    def bank(self, scope: str) -> InMemoryBank:
        """The bank of a scope; an unknown scope's is empty. Raises BankError for a scope that is not Unicode."""
        known = self._banks.get(scope)
        if known is not None:
            return known
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
        """One disk sync for everything applied inside the block, and no change by another thread."""
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
