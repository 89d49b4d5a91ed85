"""The embedded default: a journal and a LanceDB table of the entries and their vectors in one folder. The only module
that imports lancedb.

The table is a mirror (`memr1.bank.mirrored`): the journal is the truth, the table is written in batches behind it, and
any LanceDB tool can read it.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from memr1.bank.embedding import Embedder, Vectors
from memr1.bank.entry import MemoryEntry
from memr1.bank.mirrored import Key, MirroredStore, entry_digest, key_digest
from memr1.errors import BankUnavailable

log = logging.getLogger(__name__)

TABLE_NAME = "entries"
ROWS_PER_WRITE = 1_024  # changed entries that wait in memory: a write costs about 20 ms, however few rows it has
WRITES_PER_TIDY = 16  # every write leaves a version and a small file behind
SMALL_TABLE = 4_096  # rows; tidying reads all of a table, so a larger one waits until its files are many for its size
KEEP_VERSIONS = timedelta(seconds=1)
LANCE_ERRORS = (OSError, RuntimeError, ValueError)  # what lancedb raises for a damaged, missing or unwritable table


class LanceStore(MirroredStore):
    """See `memr1.bank.bank.BankStore`."""

    def __init__(
        self, folder: Path, embedder: Embedder, *, rows_per_write: int = ROWS_PER_WRITE, wait_seconds: float = 0.0
    ) -> None:
        """A folder that another process has open is waited for `wait_seconds`.

        Raises BankUnavailable for a folder that cannot be written or is in use, BankError for a damaged journal.
        """

        def open_table() -> EntryTable:
            return EntryTable(folder, embedder)

        super().__init__(folder, embedder, open_table, rows_per_write=rows_per_write, wait_seconds=wait_seconds)


class EntryTable:
    """One row per entry of all scopes. Rows are addressed by digests, so no text of a user ever enters a filter."""

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        """Open the folder's table; a missing or damaged one, or one of another embedder, is begun anew."""
        self._folder = folder
        self._path = folder / f"{TABLE_NAME}.lance"
        self._dimension = embedder.dimension
        self._schema = _build_schema(embedder)
        self._num_writes = 0
        stored = self._open_stored()
        self._digests: dict[Key, str] = stored or {}  # (scope, id) → `entry_digest`, as the table was found
        if stored is None:
            self._begin_anew()

    def take_digests(self) -> dict[Key, str]:
        """(scope, id) → `entry_digest`, of every row that the table held when it was opened."""
        digests, self._digests = self._digests, {}
        return digests

    def vectors(self, scope: str) -> dict[str, Vectors]:
        """Text → vector, for every row of a scope. A table that cannot be read gives none."""
        query = self._table.search().where(f"scope_key = '{key_digest(scope)}'").select(["text", "vector"])
        try:
            rows = query.to_arrow()
        except LANCE_ERRORS as error:
            log.warning("the table in %s cannot be read (%s): embedding scope %r again", self._folder, error, scope)
            return {}
        matrix = np.asarray(rows["vector"].combine_chunks().flatten(), dtype=np.float32).reshape(-1, self._dimension)
        return dict(zip(rows["text"].to_pylist(), matrix, strict=True))

    def write(self, entries: Sequence[MemoryEntry], vectors: Vectors, stale: Sequence[Key]) -> None:
        """Drop the stale rows, then append. Raises BankUnavailable.

        `merge_insert` would do both at once, and read the whole table, vectors included, wherever a row changes: its
        memory grows with the table. A crash between the two leaves rows out, which the next opening notices.
        """
        listed = ",".join(f"'{key_digest(*key)}'" for key in stale)
        rows = [_build_row(entry, vector) for entry, vector in zip(entries, vectors, strict=True)]
        with self._writing():
            if stale:
                self._table.delete(f"key IN ({listed})")
            if rows:
                self._table.add(pa.Table.from_pylist(rows, schema=self._schema))
        if self._num_writes >= WRITES_PER_TIDY:
            self._tidy_where_needed()

    def wait(self) -> None:
        """Return at once: a disk that failed may take the next write, or it will say so again."""

    def close(self) -> None:
        """Merge small files and drop old versions, where it is worth it. Raises BankUnavailable."""
        if self._num_writes:
            self._tidy_where_needed()

    def _tidy_where_needed(self) -> None:
        with self._writing():
            stats = self._table.stats()
            num_rows, num_files = stats["num_rows"], stats["fragment_stats"]["num_fragments"]
            if num_rows <= SMALL_TABLE or num_files > WRITES_PER_TIDY + 2 * num_rows // ROWS_PER_WRITE:
                self._table.optimize(cleanup_older_than=KEEP_VERSIONS)
        self._num_writes = 0

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except LANCE_ERRORS as error:
            raise BankUnavailable(
                f"cannot write the table in {self._folder}: {error}. Free the disk, then open the store again"
            ) from error
        self._num_writes += 1

    def _open_stored(self) -> dict[Key, str] | None:
        """Open the table that is there and list its rows; None when there is none that can be used."""
        try:
            self._table: Any = lancedb.connect(self._folder).open_table(TABLE_NAME)
            if not self._table.schema.equals(self._schema, check_metadata=True):
                log.info("the table in %s was made by another embedder: building it again", self._folder)
                return None
            rows = self._table.search().select(["scope", "id", "digest"]).to_arrow()
        except LANCE_ERRORS as error:
            if self._path.exists():
                log.warning("the table in %s cannot be read (%s): building it again", self._folder, error)
            return None
        columns = [rows[name].to_pylist() for name in ("scope", "id", "digest")]
        return {(scope, entry_id): digest for scope, entry_id, digest in zip(*columns, strict=True)}

    def _begin_anew(self) -> None:
        with self._writing():
            if self._path.exists():
                shutil.rmtree(self._path)
            self._table = lancedb.connect(self._folder).create_table(TABLE_NAME, schema=self._schema)


def _build_schema(embedder: Embedder) -> pa.Schema:
    texts = ["key", "scope_key", "digest", "scope", "id", "speaker", "text", "time"]
    fields = [pa.field(name, pa.string()) for name in texts]
    fields.append(pa.field("turn_ids", pa.list_(pa.string())))
    fields.append(pa.field("vector", pa.list_(pa.float32(), embedder.dimension)))
    return pa.schema(fields, metadata={"embedder": embedder.name})


def _build_row(entry: MemoryEntry, vector: Vectors) -> dict[str, Any]:
    return {
        "key": key_digest(entry.scope, entry.id),
        "scope_key": key_digest(entry.scope),
        "digest": entry_digest(entry),
        "scope": entry.scope,
        "id": entry.id,
        "speaker": entry.speaker,
        "text": entry.text,
        "time": entry.time.isoformat(),
        "turn_ids": list(entry.turn_ids),
        "vector": vector,
    }
