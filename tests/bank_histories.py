"""A fixed history of operations over three scopes, a Memory Manager that changes what it was shown, and an embedder
that tells what it had to embed."""

from collections.abc import Sequence
from datetime import datetime

from memr1.agents.memory_manager import ManagerDecision, ManagerRequest
from memr1.bank.bank import BankStore
from memr1.bank.embedding import HashEmbedder, Vectors
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.operation import Operation, Source

SCOPES = ("c1", "c2", 'it\'s "three"')


class CountingEmbedder(HashEmbedder):
    """Keeps every text that it had to embed."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `HashEmbedder.embed`."""
        self.texts.extend(texts)
        return super().embed(texts)


class ChangingManager:
    """Adds every fact. Every fifth turn replaces the best of the entries that it was shown, every seventh deletes the
    last of them: so what a bank becomes depends on everything that it retrieved before."""

    name = "changing"

    def decide(self, requests: Sequence[ManagerRequest]) -> list[ManagerDecision]:
        """See `memr1.agents.memory_manager.ManagerPolicy`."""
        return [ManagerDecision(operations=tuple(self._operations(request))) for request in requests]

    def _operations(self, request: ManagerRequest) -> list[Operation]:
        operations = [Operation(kind="ADD", text=fact) for fact in request.facts]
        number = int(request.turn_id.split(":")[1])
        if number % 5 == 0 and request.memories:
            operations.append(Operation(kind="UPDATE", entry_id=request.memories[0].id, text=f"new {request.turn_id}"))
        if number % 7 == 0 and len(request.memories) > 1:
            operations.append(Operation(kind="DELETE", entry_id=request.memories[-1].id))
        return operations


def apply_step(store: BankStore, step: int) -> None:
    """The `step`-th of the history: additions, updates, deletions, empty turns."""
    bank = store.bank(SCOPES[step % 3])
    source = Source(turn_id=f"D1:{step}", speaker="Marta", time=datetime(2024, 5, 1), policy="test")
    held = bank.entries()
    operations = [Operation(kind="ADD", text=f"fact {step} a"), Operation(kind="ADD", text=f"fact {step} b")]
    if step % 4 == 3 and len(held) > 1:
        operations[1:] = [
            Operation(kind="UPDATE", entry_id=held[0].id, text=f"fact {step} new"),
            Operation(kind="DELETE", entry_id=held[1].id),
        ]
    bank.apply(operations if step % 5 else [], source)


def apply_steps(store: BankStore, first: int, last: int) -> None:
    """Steps `first` to `last` - 1."""
    for step in range(first, last):
        apply_step(store, step)


def assert_same_banks(store: BankStore, num_steps: int) -> InMemoryStore:
    """The store holds, records and finds what one does that applied the same steps in peace; that one is returned."""
    reference = InMemoryStore(HashEmbedder())
    apply_steps(reference, 0, num_steps)
    assert store.scopes() == reference.scopes()
    for scope in reference.scopes():
        bank, expected = store.bank(scope), reference.bank(scope)
        assert (bank.entries(), bank.journal()) == (expected.entries(), expected.journal())
        assert bank.retrieve("fact 3", speaker=None, limit=9) == expected.retrieve("fact 3", speaker=None, limit=9)
    return reference
