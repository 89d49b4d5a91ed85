"""How fast the memory bank is: embedding, ranking, and a build in lockstep.

    python benchmarks/memory_bank.py [--quick] [--out FILE.json]

Processor seconds are what this process used; wall seconds also wait for the disk and for other processes.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from harness import run_benchmark

from memr1.bank.bank import BankStore
from memr1.bank.embedding import MiniLmEmbedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryBank, InMemoryStore
from memr1.bank.lancedb_bank import LanceStore
from memr1.bank.operation import Operation, Source
from memr1.bank.retrieval import build_index, embedded_part

NAMES, PLACES = ("Marta", "Joe", "Anna", "Peter", "Silvia", "Omar"), ("Lisbon", "Rome", "Oslo", "Paris", "Bern", "Lima")
NUM_CONVERSATIONS, NUM_TURNS = 60, 25
SENTENCES = [f"{NAMES[n % 6]} went to {PLACES[n % 5]} with {n} friends" for n in range(NUM_CONVERSATIONS * NUM_TURNS)]


def measure(options: argparse.Namespace) -> dict[str, object]:
    embedder = MiniLmEmbedder()
    sizes = (10, 20) if options.quick else (10, 20, 600)
    return {
        "embedding": measure_embedding(embedder),
        "ranking": {str(size): measure_ranking(embedder, size) for size in sizes},
        "build": {
            f"{name}, {'grouped' if grouped else 'single'} commits": measure_build(name, grouped, embedder)
            for name in OPENERS
            for grouped in (False, True)
        },
    }


def measure_embedding(embedder: MiniLmEmbedder) -> dict[str, float]:
    embedder.embed(["loads the model"])
    with clock() as seconds:
        embedder.embed(SENTENCES)
    return {"num_sentences": len(SENTENCES), **seconds}


def measure_ranking(embedder: MiniLmEmbedder, size: int) -> dict[str, float]:
    """Microseconds for one query, vectors known; the fastest of ten rounds."""
    time_of = datetime(2024, 1, 1)
    entries = [MemoryEntry(id=str(n), scope="c", speaker="s", text=SENTENCES[n], time=time_of) for n in range(size)]
    queries, vectors = SENTENCES[-200:], embedder.embed(SENTENCES[:size])
    query_vectors = embedder.embed(queries)
    bank, index = InMemoryBank("c", embedder, entries=entries), build_index(entries, vectors)

    def fastest(rank: Callable[[int], object]) -> float:
        rounds = []
        for _ in range(10):
            started = time.process_time()
            for number in range(len(queries)):
                rank(number)
            rounds.append((time.process_time() - started) / len(queries))
        return round(min(rounds) * 1e6, 1)

    return {
        "make_index_us": fastest(lambda n: build_index(entries, vectors)),
        "rank_us": fastest(lambda n: index.rank(queries[n], query_vectors[n], speaker=None, limit=30)),
        "retrieve_us": fastest(lambda n: bank.retrieve(queries[n], speaker=None, limit=30)),
    }


OPENERS: dict[str, Callable[[MiniLmEmbedder, Path], BankStore]] = {
    "in_memory": lambda embedder, _: InMemoryStore(embedder),
    "in_memory with journal": InMemoryStore,
    "lancedb": lambda embedder, folder: LanceStore(folder, embedder),
}


def measure_build(name: str, grouped: bool, embedder: MiniLmEmbedder) -> dict[str, float]:
    """Every turn retrieves six entries and applies one operation; embedding is done before."""
    for num_speakers in range(3):  # a query is embedded without the speakers that the bank knows by then
        embedder.embed([embedded_part(sentence, NAMES[:num_speakers]) for sentence in SENTENCES])
    with tempfile.TemporaryDirectory() as folder, clock() as seconds:
        store = OPENERS[name](embedder, Path(folder))
        for turn in range(NUM_TURNS):
            if grouped:
                with store.group_commits():
                    apply_step(store, turn)
            else:
                apply_step(store, turn)
        store.close()
    return {"num_turns": NUM_CONVERSATIONS * NUM_TURNS, **seconds}


def apply_step(store: BankStore, turn: int) -> None:
    for conversation in range(NUM_CONVERSATIONS):
        bank = store.bank(f"conversation {conversation}")
        text, speaker = SENTENCES[conversation * NUM_TURNS + turn], NAMES[turn % 2]
        shown = bank.retrieve(text, speaker=speaker, limit=6)
        change = Operation(kind="ADD", text=text)
        if shown and turn % 4 == 3:
            change = Operation(kind="UPDATE", entry_id=shown[0].id, text=text)
        bank.apply([change], Source(turn_id=str(turn), speaker=speaker, time=datetime(2024, 1, 1), policy="benchmark"))


@contextmanager
def clock() -> Iterator[dict[str, float]]:
    """Fills the dictionary it gives when the block ends."""
    seconds: dict[str, float] = {}
    wall, processor = time.perf_counter(), time.process_time()
    yield seconds
    seconds["wall_seconds"] = round(time.perf_counter() - wall, 3)
    seconds["processor_seconds"] = round(time.process_time() - processor, 3)


if __name__ == "__main__":
    run_benchmark("memory_bank", __doc__, measure)
