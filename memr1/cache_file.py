"""Results on disk, by key: a SQLite file that several processes may share and a kill cannot spoil.

It is a cache and never the truth: when it cannot be used, that is logged once and everything goes on without it.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

log = logging.getLogger(__name__)
KEYS_PER_QUERY = 500  # below SQLite's oldest limit on parameters


class CacheFile:
    """Keys → bytes. The first value written for a key stays, whichever process wrote it."""

    def __init__(self, path: Path, table: str) -> None:
        """`table` is a name of the program's own: it becomes part of the SQL."""
        self._path, self._table = path, f'"{table}"'
        self._connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The owner serialises access; a served model calls from several threads.
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
            )
        except (sqlite3.Error, OSError) as error:
            self._go_without(error)

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are known."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            found.update(self._select(keys[start : start + KEYS_PER_QUERY]))
        return found

    def write(self, values: Mapping[bytes, bytes]) -> None:
        """Keep these values, all in one transaction, except those of keys that have one already."""
        if self._connection is None or not values:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(f"INSERT OR IGNORE INTO {self._table} VALUES (?, ?)", values.items())
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._go_without(error)

    def _select(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        if self._connection is None:
            return []
        marks = ",".join("?" * len(keys))
        try:
            return self._connection.execute(f"SELECT * FROM {self._table} WHERE key IN ({marks})", keys).fetchall()
        except sqlite3.Error as error:
            self._go_without(error)
            return []

    def _go_without(self, error: Exception) -> None:
        log.warning("cache %s cannot be used (%s): going on without it; delete it if this stays", self._path, error)
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def content_key(*parts: str) -> bytes:
    """16 bytes that stand for these texts, in this order."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()
