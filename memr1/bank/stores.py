"""The kinds of bank store, by the word that the configuration uses for them."""

import os
from pathlib import Path

from memr1.bank.bank import BankStore
from memr1.bank.embedding import Embedder
from memr1.bank.in_memory import InMemoryStore
from memr1.config import BankConfig


def open_store(config: BankConfig, folder: Path, embedder: Embedder, *, wait_seconds: float = 0.0) -> BankStore:
    """Open the store of `folder`, or begin one; its journal stays there for every kind.

    One process at a time has it; one that asks meanwhile waits so long for it to be closed. Raises BankUnavailable for
    a store that is still in use then, BankError, and ConfigError when the kind needs a server that the environment does
    not name.
    """
    if config.kind == "in_memory":
        return InMemoryStore(embedder, folder, wait_seconds=wait_seconds)
    if config.kind == "weaviate":
        from memr1.bank.weaviate_address import read_address
        from memr1.bank.weaviate_bank import WeaviateStore

        return WeaviateStore(folder, embedder, config, read_address(os.environ), wait_seconds=wait_seconds)
    from memr1.bank.lancedb_bank import LanceStore  # lancedb takes a second to import: only when it is used

    return LanceStore(folder, embedder, wait_seconds=wait_seconds)
