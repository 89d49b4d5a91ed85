"""Which banks of a store are in memory: those that somebody holds, and the last ones that were asked for."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

Bank = TypeVar("Bank")
BANKS_KEPT = 64  # for those who ask for a bank anew at every change; one of 600 entries takes about 2 MB


class BankShelf(Generic[Bank]):
    """The banks of a store, each at most once at a time. Threads may share it."""

    def __init__(self, *, keeps_all: bool = False) -> None:
        """`keeps_all`: nothing can be made again, so nothing is let go of."""
        self._keeps_all = keeps_all
        self._known: WeakValueDictionary[str, Bank] = WeakValueDictionary()
        self._last: dict[str, Bank] = {}  # the one that was asked for last stands last
        self._asking = threading.Lock()

    def bank(self, scope: str, build: Callable[[str], Bank]) -> Bank:
        """The bank of a scope, the same one as long as anybody has it; otherwise what `build` makes."""
        with self._asking:
            bank = self._last.pop(scope, None) or self._known.get(scope)
            if bank is None:
                bank = self._known[scope] = build(scope)
            self._last[scope] = bank
            if len(self._last) > BANKS_KEPT and not self._keeps_all:
                del self._last[next(iter(self._last))]
            return bank
