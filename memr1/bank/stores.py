"""The kinds of bank store, by the word that the configuration uses for them."""

from pathlib import Path

from memr1.bank.bank import BankStore
from memr1.bank.embedding import Embedder
from memr1.bank.in_memory import InMemoryStore
from memr1.config import BankConfig


def open_store(config: BankConfig, folder: Path, embedder: Embedder) -> BankStore:
    """Open the store of `folder`, or begin one; its journal stays there for every kind. Raises BankError."""
    if config.kind == "in_memory":
        return InMemoryStore(embedder, folder)
    from memr1.bank.lancedb_bank import LanceStore  # lancedb takes a second to import: only when it is used

    return LanceStore(folder, embedder)
