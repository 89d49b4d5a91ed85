"""Writers that change the same banks at once, each its own share of operations, and what must be true in the end.

Of every writer's operations a third adds a fact of its own, a third a fact that all writers tell (and that no bank may
hold twice), and a third counts: it replaces "count 41" by "count 42".
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

from memr1.bank.bank import BankStore, MemoryBank, fold_journal
from memr1.bank.embedding import HashEmbedder
from memr1.bank.in_memory import InMemoryBank
from memr1.bank.operation import Operation, Source
from memr1.bank.stores import open_store
from memr1.config import BankConfig

NUM_COMMON = 20
WAIT_SECONDS = 900.0  # all other writers may come first, on a busy machine


def write_share(store: BankStore, writer: int, numbers: Sequence[int], scopes: Sequence[str]) -> None:
    """Carry out the operations of these numbers, one apply each, scope after scope."""
    for number in numbers:
        bank = store.bank(scope_of(writer, number, scopes))
        source = Source(turn_id=f"{writer}:{number}", speaker="Marta", time=datetime(2024, 5, 1), policy="test")
        if number % 3 == 0:
            bank.apply([Operation(kind="ADD", text=f"own {writer} {number}")], source)
        else:
            with store.group_commits():  # what is read inside holds until its end
                bank.apply(_decide(bank, number), source)


def write_share_from_process(
    config: BankConfig, folder: Path, writer: int, num_operations: int, per_opening: int, scopes: Sequence[str]
) -> None:
    """The same in a process that opens the store, carries out a few operations, closes it, and opens it again."""
    for first in range(0, num_operations, per_opening):
        numbers = range(first, min(num_operations, first + per_opening))
        with closing(open_store(config, folder, HashEmbedder(), wait_seconds=WAIT_SECONDS)) as store:
            write_share(store, writer, numbers, scopes)


def scope_of(writer: int, number: int, scopes: Sequence[str]) -> str:
    """Every writer comes to every scope."""
    return scopes[(writer + number // 3) % len(scopes)]


def assert_nothing_is_lost(store: BankStore, num_writers: int, num_operations: int, scopes: Sequence[str]) -> None:
    """Every operation is in a journal, once, in the order of its writer; every bank is what its journal says."""
    shares = [(writer, number) for writer in range(num_writers) for number in range(num_operations)]
    assert sorted(store.scopes()) == sorted(scopes)
    for scope in scopes:
        bank, its = store.bank(scope), [item for item in shares if scope_of(*item, scopes) == scope]
        journal = bank.journal()
        assert [record.sequence for record in journal] == list(range(1, len(its) + 1))
        assert [record.num_following for record in journal] == [0] * len(its)
        told = [tuple(map(int, record.source.turn_id.split(":"))) for record in journal]
        assert sorted(told) == its
        for writer in range(num_writers):
            assert [item for item in told if item[0] == writer] == [item for item in its if item[0] == writer]
        assert bank.entries() == fold_journal(journal, scope)
        assert Counter(entry.text for entry in bank.entries()) == _expected_texts(its)
        assert_found_alike(bank)


def assert_found_alike(bank: MemoryBank) -> None:
    """The bank finds what one does that was made from its journal in peace."""
    peaceful = InMemoryBank(bank.scope, HashEmbedder(), journal=bank.journal())
    for query in ("count", "common 3", "own 1 30"):
        assert bank.retrieve(query, speaker=None, limit=9) == peaceful.retrieve(query, speaker=None, limit=9)


def _decide(bank: MemoryBank, number: int) -> list[Operation]:
    if number % 3 == 1:
        fact = f"common {number % NUM_COMMON}"
        return [] if any(entry.text == fact for entry in bank.entries()) else [Operation(kind="ADD", text=fact)]
    counter = next((entry for entry in bank.entries() if entry.text.startswith("count ")), None)
    if counter is None:
        return [Operation(kind="ADD", text="count 1")]
    return [Operation(kind="UPDATE", entry_id=counter.id, text=f"count {int(counter.text.split()[1]) + 1}")]


def _expected_texts(shares: Sequence[tuple[int, int]]) -> Counter[str]:
    own = [f"own {writer} {number}" for writer, number in shares if number % 3 == 0]
    common = {f"common {number % NUM_COMMON}" for _, number in shares if number % 3 == 1}
    num_counted = sum(number % 3 == 2 for _, number in shares)
    return Counter([*own, *common, *([f"count {num_counted}"] if num_counted else [])])
