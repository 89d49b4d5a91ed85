"""Vectors on disk, by content: a SQLite file that several processes may share and a crash cannot spoil.

It is a cache and never the truth: when it cannot be used, that is logged once and everything goes on without it.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)
KEYS_PER_QUERY = 500  # below SQLite's oldest limit on parameters
Vectors = NDArray[np.float32]


class VectorFile:
    """Texts → vectors of one model. Several models may share a file."""

    def __init__(self, path: Path, model: str, dimension: int) -> None:
        self._path, self._model, self._dimension = path, model, dimension
        self._connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The owner serialises access; a served model calls from several threads.
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
        except (sqlite3.Error, OSError) as error:
            self._go_without(error)

    def read(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of those texts that are known."""
        by_key = {self._key(text): text for text in texts}
        keys = list(by_key)
        found: dict[str, Vectors] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            for key, blob in self._select(keys[start : start + KEYS_PER_QUERY]):
                if len(blob) == 4 * self._dimension:
                    found[by_key[key]] = np.frombuffer(blob, dtype="<f4").astype(np.float32)
        return found

    def write(self, vectors: Mapping[str, Vectors]) -> None:
        """Keep the vectors of these texts, all in one transaction."""
        if self._connection is None:
            return
        rows = [(self._key(text), vector.astype("<f4").tobytes()) for text, vector in vectors.items()]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._go_without(error)

    def _select(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        if self._connection is None:
            return []
        marks = ",".join("?" * len(keys))
        try:
            return self._connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", keys).fetchall()
        except sqlite3.Error as error:
            self._go_without(error)
            return []

    def _key(self, text: str) -> bytes:
        return hashlib.blake2b(f"{self._model}\0{text}".encode(), digest_size=16).digest()

    def _go_without(self, error: Exception) -> None:
        log.warning(
            "embedding cache %s cannot be used (%s): going on without it; delete it if this stays", self._path, error
        )
        if self._connection is not None:
            self._connection.close()
            self._connection = None
