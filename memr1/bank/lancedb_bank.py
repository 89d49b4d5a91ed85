"""The embedded default: a journal and a LanceDB table of the entries and their vectors in one folder. The only module
that imports lancedb.

The journal is the truth. The table is derived: it is written in batches behind the journal, and brought back in line
with it when the store is opened, so that a crash at any point changes nothing. It saves embedding a bank again, and any
LanceDB tool can read it. Ranking happens in this process, over the vectors of one scope, by the code that every bank
kind shares: the order is then the same for all of them (and faster than a query, at any size of one conversation).

Left out: banks larger than memory.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from memr1.bank.embedding import Embedder, Vectors
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryBank, InMemoryStore
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.errors import BankError, BankUnavailable

log = logging.getLogger(__name__)

TABLE_NAME = "entries"
ROWS_PER_WRITE = 512  # changed entries that wait in memory: one write costs about 20 ms, however few rows it has
WRITES_PER_TIDY = 16  # every write leaves a version and a small file behind
KEEP_VERSIONS = timedelta(seconds=1)
LANCE_ERRORS = (OSError, RuntimeError, ValueError)  # what lancedb raises for a damaged, missing or unwritable table
Key = tuple[str, str]  # scope, entry id


class LanceStore:
    """See `memr1.bank.bank.BankStore`."""

    def __init__(self, folder: Path, embedder: Embedder, *, rows_per_write: int = ROWS_PER_WRITE) -> None:
        """Raises BankUnavailable for a folder that cannot be written or is in use, BankError for a damaged journal."""
        self._embedder = embedder
        self._rows_per_write = rows_per_write
        self._memory = InMemoryStore(embedder, folder, load_vectors=self._read_vectors)
        self._banks: dict[str, LanceBank] = {}
        self._closed = False
        try:
            self._table = EntryTable(folder, embedder)
            self._changed = dict.fromkeys(self._find_differences())
        except BankError:
            self._memory.close()
            raise

    def bank(self, scope: str) -> "LanceBank":
        """The bank of a scope; an unknown scope's is empty."""
        if scope not in self._banks:
            self._banks[scope] = LanceBank(self._memory.bank(scope), self)
        return self._banks[scope]

    def scopes(self) -> list[str]:
        """Every scope that has a journal, in the order of their first records."""
        return self._memory.scopes()

    def group_commits(self) -> AbstractContextManager[None]:
        """One disk sync of the journal for everything applied inside the block."""
        return self._memory.group_commits()

    def close(self) -> None:
        """Bring the table up to the journal and let go of both; may be called twice. Raises BankUnavailable."""
        if self._closed:
            return
        self._closed = True
        try:
            self.write_table()
            self._table.tidy()
        finally:
            self._memory.close()

    def write_table(self) -> None:
        """Bring the table up to the journal. Raises BankUnavailable; the journal then still has everything."""
        held = {(e.scope, e.id): e for scope in {scope for scope, _ in self._changed} for e in self._entries(scope)}
        written = [held[key] for key in self._changed if key in held]
        if written:
            self._table.put(written, self._embedder.embed([entry.text for entry in written]))
        self._table.remove([key for key in self._changed if key not in held])
        self._changed.clear()
        if self._table.num_writes >= WRITES_PER_TIDY:
            self._table.tidy()

    def follow(self, records: Iterable[JournalRecord]) -> None:
        """Remember which rows the records made stale, and write them once there are enough."""
        for record in records:
            changed = record.after or record.before
            if changed is not None:
                self._changed[changed.scope, changed.id] = None
        if len(self._changed) >= self._rows_per_write:
            try:
                self.write_table()
            except BankError as error:
                # The operations are in the journal already: to fail here would make the caller apply them twice.
                log.warning("%s. The journal has everything; the table is brought in line later", error)

    def _find_differences(self) -> list[Key]:
        """Rows that the table lacks, has in another wording, or has too many."""
        entries = (entry for scope in self._memory.scopes() for entry in self._entries(scope))
        wanted = {(entry.scope, entry.id): entry_digest(entry) for entry in entries}
        present = self._table.digests
        different = [key for key in (*wanted, *present) if wanted.get(key) != present.get(key)]
        if different:
            log.info("%d rows of the table differ from the journal and will be written again", len(set(different)))
        return different

    def _entries(self, scope: str) -> list[MemoryEntry]:
        return self._memory.bank(scope).entries()

    def _read_vectors(self, scope: str) -> Mapping[str, Vectors]:
        return self._table.vectors(scope)


class LanceBank:
    """See `memr1.bank.bank.MemoryBank`. The working set is an in-memory bank; the table follows it."""

    def __init__(self, memory: InMemoryBank, store: LanceStore) -> None:
        self.scope = memory.scope
        self._memory = memory
        self._store = store

    def entries(self, speaker: str | None = None) -> list[MemoryEntry]:
        """All entries in the order in which they were added, or those of one speaker."""
        return self._memory.entries(speaker)

    def apply(self, operations: Sequence[Operation], source: Source) -> list[JournalRecord]:
        """Apply all operations or none; raises UnknownEntry, BankError or BankUnavailable, the bank unchanged."""
        records = self._memory.apply(operations, source)
        self._store.follow(records)
        return records

    def retrieve(self, query: str, *, speaker: str | None, limit: int) -> list[MemoryEntry]:
        """At most `limit` entries (of one speaker, or of all), best first."""
        return self._memory.retrieve(query, speaker=speaker, limit=limit)

    def journal(self) -> list[JournalRecord]:
        """Every record of the scope, oldest first."""
        return self._memory.journal()


class EntryTable:
    """One row per entry of all scopes. Rows are addressed by digests, so no text of a user ever enters a filter."""

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        """Open the folder's table; a missing or damaged one, or one of another embedder, is begun anew."""
        self._folder = folder
        self._path = folder / f"{TABLE_NAME}.lance"
        self._dimension = embedder.dimension
        self._schema = _build_schema(embedder)
        self.num_writes = 0
        stored = self._open_stored()
        self.digests: dict[Key, str] = stored or {}  # (scope, id) → `entry_digest`, as the table was found
        self._stored_scopes = {scope for scope, _ in self.digests}
        if stored is None:
            self._begin_anew()

    def vectors(self, scope: str) -> dict[str, Vectors]:
        """Text → vector, for every row of a scope that the table held when it was opened.

        A table that cannot be read gives none.
        """
        if scope not in self._stored_scopes:
            return {}
        query = self._table.search().where(f"scope_key = '{_digest(scope)}'").select(["text", "vector"])
        try:
            rows = query.to_arrow()
        except LANCE_ERRORS as error:
            log.warning("the table in %s cannot be read (%s): embedding scope %r again", self._folder, error, scope)
            return {}
        matrix = np.asarray(rows["vector"].combine_chunks().flatten(), dtype=np.float32).reshape(-1, self._dimension)
        return dict(zip(rows["text"].to_pylist(), matrix, strict=True))

    def put(self, entries: Sequence[MemoryEntry], vectors: Vectors) -> None:
        """Write the rows of these entries, in place of those that have their keys. Raises BankUnavailable."""
        rows = [_build_row(entry, vector) for entry, vector in zip(entries, vectors, strict=True)]
        merge = self._table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
        with self._writing():
            merge.execute(pa.Table.from_pylist(rows, schema=self._schema))

    def remove(self, keys: Sequence[Key]) -> None:
        """Delete these rows; a missing one is no error. Raises BankUnavailable."""
        if keys:
            listed = ",".join(f"'{_digest(*key)}'" for key in keys)
            with self._writing():
                self._table.delete(f"key IN ({listed})")

    def tidy(self) -> None:
        """Merge small files and drop old versions. Raises BankUnavailable."""
        if self.num_writes:
            with self._writing():
                self._table.optimize(cleanup_older_than=KEEP_VERSIONS)
            self.num_writes = 0

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except LANCE_ERRORS as error:
            raise BankUnavailable(
                f"cannot write the table in {self._folder}: {error}. Free the disk, then open the store again"
            ) from error
        self.num_writes += 1

    def _open_stored(self) -> dict[Key, str] | None:
        """Open the table that is there and list its rows; None when there is none that can be used."""
        try:
            self._table: Any = lancedb.connect(self._folder).open_table(TABLE_NAME)
            if not self._table.schema.equals(self._schema, check_metadata=True):
                log.info("the table in %s was made by another embedder: building it again", self._folder)
                return None
            rows = self._table.search().select(["scope", "id", "digest"]).to_arrow().to_pylist()
        except LANCE_ERRORS as error:
            if self._path.exists():
                log.warning("the table in %s cannot be read (%s): building it again", self._folder, error)
            return None
        return {(row["scope"], row["id"]): row["digest"] for row in rows}

    def _begin_anew(self) -> None:
        with self._writing():
            if self._path.exists():
                shutil.rmtree(self._path)
            self._table = lancedb.connect(self._folder).create_table(TABLE_NAME, schema=self._schema)


def entry_digest(entry: MemoryEntry) -> str:
    """Changes with every field of the entry."""
    return _digest(entry.model_dump_json())


def _build_schema(embedder: Embedder) -> pa.Schema:
    texts = ["key", "scope_key", "digest", "scope", "id", "speaker", "text", "time"]
    fields = [pa.field(name, pa.string()) for name in texts]
    fields.append(pa.field("turn_ids", pa.list_(pa.string())))
    fields.append(pa.field("vector", pa.list_(pa.float32(), embedder.dimension)))
    return pa.schema(fields, metadata={"embedder": embedder.name})


def _build_row(entry: MemoryEntry, vector: Vectors) -> dict[str, Any]:
    return {
        "key": _digest(entry.scope, entry.id),
        "scope_key": _digest(entry.scope),
        "digest": entry_digest(entry),
        "scope": entry.scope,
        "id": entry.id,
        "speaker": entry.speaker,
        "text": entry.text,
        "time": entry.time.isoformat(),
        "turn_ids": list(entry.turn_ids),
        "vector": vector,
    }


def _digest(*parts: str) -> str:
    """Hexadecimal, so that it can stand in a filter whatever the parts are."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
