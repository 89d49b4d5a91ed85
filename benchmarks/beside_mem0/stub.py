"""What both libraries are given: the same sentences, the same vectors, the same model.

Nothing here needs more than numpy, so that it runs in the environment of either library.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from memr1.bank.embedding import HashEmbedder, Vectors

NAMES = ("Marta", "Joe", "Anna", "Peter", "Silvia", "Omar")
PLACES = ("Lisbon", "Rome", "Oslo", "Paris", "Bern")
VERBS = ("went to", "lives in", "bought a house in", "has a brother in", "dreams of", "flew back from", "works in")
SHOWN = 10  # memories that a model sees beside a new text: mem0's number

Policy = Callable[[str, Mapping[str, str]], str]  # the new text, and what is shown of the memory (text → id)


class Side(Protocol):
    """One of the two libraries, with a memory of its own in a folder."""

    model: "StubModel"

    def add(self, user: str, text: str) -> None:
        """Let the model decide on a text, beside what is remembered already; return once it is stored."""
        ...

    def add_raw(self, user: str, text: str) -> None:
        """Store a text without asking the model."""
        ...

    def add_conversations(self, texts: Mapping[str, Sequence[str]]) -> None:
        """Let the model decide on every text of every user, in the way that the library offers for many."""
        ...

    def fill(self, user: str, texts: Sequence[str]) -> None:
        """Store texts without asking the model, in the fastest way that the library documents."""
        ...

    def search(self, user: str, query: str, limit: int) -> list[str]:
        """The texts found, best first."""
        ...

    def texts(self, user: str) -> list[str]:
        """Everything that is remembered of a user."""
        ...

    def delete(self, user: str, text: str) -> None:
        """Remove the memory that has this text."""
        ...

    def unreadable_outputs(self, user: str) -> list[str]:
        """What the model said when that could not be read, as far as the library kept it."""
        ...

    def close(self) -> None: ...


OpenSide = Callable[[Path, "StubModel", "RememberingEmbedder"], Side]


class StubModel:
    """A model that answers at once, by a policy. Its replies are in the JSON form that mem0 asks for, with the event
    that the form once had; memr1 reads the same form."""

    def __init__(self) -> None:
        self.policy: Policy = always_add
        self.wait: Callable[[], object] = lambda: None  # before every reply
        self.num_calls = 0

    def reply(self, text: str, shown: Mapping[str, str]) -> str:
        self.num_calls += 1
        self.wait()
        return self.policy(text, shown)


class RememberingEmbedder:
    """384 dimensions, a sum of word vectors; every text is computed once. `num_computed` counts them."""

    name = "hash"

    def __init__(self) -> None:
        self._embedder = HashEmbedder(384)
        self.dimension = self._embedder.dimension
        self._known: dict[str, Vectors] = {}
        self.num_computed = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text, as memr1 wants them."""
        import numpy as np

        rows = [self.vector(text) for text in texts]
        return np.stack(rows) if rows else np.empty((0, self.dimension), dtype=np.float32)

    def vector(self, text: str) -> Vectors:
        known = self._known.get(text)
        if known is None:
            self.num_computed += 1
            known = self._known[text] = self._embedder.embed([text])[0]
        return known


def always_add(text: str, shown: Mapping[str, str]) -> str:
    return _reply([{"id": "0", "text": text, "event": "ADD"}])


def add_what_is_new(text: str, shown: Mapping[str, str]) -> str:
    return _reply([] if text in shown else [{"id": "0", "text": text, "event": "ADD"}])


def update_what_is_shown(text: str, shown: Mapping[str, str]) -> str:
    """The text takes the place of the first memory that is shown."""
    if not shown:
        return always_add(text, shown)
    return _reply([{"id": next(iter(shown.values())), "text": text, "event": "UPDATE"}])


def babble(text: str, shown: Mapping[str, str]) -> str:
    return f"Sure! I will remember this: {text}"


def sentences(start: int, end: int) -> list[str]:
    return [f"{NAMES[n % 6]} {VERBS[n % 7]} {PLACES[n % 5]} with {n} friends" for n in range(start, end)]


def queries(number: int) -> list[str]:
    return [f"Where did {NAMES[n % 6]} go with {n} friends?" for n in range(number)]


def _reply(memories: Sequence[Mapping[str, str]]) -> str:
    return json.dumps({"memory": list(memories)})
