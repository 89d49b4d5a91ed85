"""The three kinds of memory bank beside each other, and Weaviate's own client doing the same work in the same run.

    WEAVIATE_URL=http://127.0.0.1:8080 python benchmarks/bank_kinds.py [--quick] [--out FILE.json]

adds_per_second   one scope; every add is an operation in the journal (one disk sync per group of 500) and, for
                  weaviate, on the server when its group ends. The client's insert_many sends batches of 500 of the
                  same rows. Vectors are computed before.
search_ms_p50     the best 30 of a scope of 600 entries, the query's vector known. Every kind of ours ranks in its own
                  process, weaviate too, and asks no server; the client's query is the server's hybrid one.

Without $WEAVIATE_URL the rows of weaviate are absent, and the result says so.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import run_benchmark

from memr1.bank.bank import BankStore
from memr1.bank.embedding import MiniLmEmbedder
from memr1.bank.operation import Operation, Source
from memr1.bank.stores import open_store
from memr1.bank.weaviate_address import URL, read_address
from memr1.config import InMemoryBank, LanceBank, WeaviateBank

NAMES, PLACES = ("Marta", "Joe", "Anna", "Peter", "Silvia", "Omar"), ("Lisbon", "Rome", "Oslo", "Paris", "Bern", "Lima")
VERBS = ("went to", "lives in", "bought a house in", "has a brother in", "dreams of", "flew back from", "works in")
SEARCHED_ENTRIES, LIMIT, ROWS_PER_GROUP = 600, 30, 500
HEARD = Source(turn_id="D1:1", speaker="Marta", time=datetime(2024, 1, 1), policy="benchmark")
COLLECTION = "Memr1Benchmark"


def measure(options: argparse.Namespace) -> dict[str, object]:
    num_adds, num_queries = (1_000, 100) if options.quick else (5_000, 400)
    embedder = MiniLmEmbedder()
    sentences = [f"{NAMES[n % 6]} {VERBS[n % 7]} {PLACES[n % 5]} with {n} friends" for n in range(num_adds)]
    queries = [f"Where did {NAMES[n % 6]} go with {n} friends?" for n in range(num_queries)]
    embedder.embed([*sentences, *queries])
    kinds = [InMemoryBank(kind="in_memory"), LanceBank()]
    if os.environ.get(URL):
        kinds.append(WeaviateBank(kind="weaviate", collection=COLLECTION))
    figures: dict[str, object] = {kind.kind: measure_kind(kind, embedder, sentences, queries) for kind in kinds}
    if not os.environ.get(URL):
        return {**figures, "weaviate": f"not measured: ${URL} is not set"}
    bare = measure_client(embedder, sentences, queries)
    return {**figures, "weaviate_client": bare, "weaviate_beside_its_client": compare(figures["weaviate"], bare)}


def compare(ours: Any, bare: Mapping[str, float]) -> dict[str, float]:
    """Ours as a share of the client's: adds (more is better), search (less is better)."""
    return {name: round(ours[name] / bare[name], 2) for name in bare}


def measure_kind(kind: Any, embedder: MiniLmEmbedder, sentences: Sequence[str], queries: Sequence[str]) -> object:
    with tempfile.TemporaryDirectory() as folder, closing(open_store(kind, Path(folder), embedder)) as store:
        fill(store, "warm up", sentences[:ROWS_PER_GROUP])
        fill(store, "searched", sentences[:SEARCHED_ENTRIES])
        seconds = clock(lambda: fill(store, "added", sentences))
        bank = store.bank("searched")
        searches = [lambda q=query: bank.retrieve(q, speaker=None, limit=LIMIT) for query in queries]
        return {"adds_per_second": round(len(sentences) / seconds), "search_ms_p50": p50(searches)}


def fill(store: BankStore, scope: str, sentences: Sequence[str]) -> None:
    bank = store.bank(scope)
    for start in range(0, len(sentences), ROWS_PER_GROUP):
        with store.group_commits():
            for text in sentences[start : start + ROWS_PER_GROUP]:
                bank.apply([Operation(kind="ADD", text=text)], HEARD)


def measure_client(embedder: MiniLmEmbedder, sentences: Sequence[str], queries: Sequence[str]) -> dict[str, float]:
    """The synchronous client as its documentation uses it, in the collection that our store has made."""
    import weaviate
    from weaviate.classes.init import Auth

    address = read_address(os.environ)
    assert address is not None, "the embedded server cannot be shared: start one and set its address"
    client = weaviate.connect_to_custom(
        http_host=address.http.host,
        http_port=address.http.port,
        http_secure=address.http.secure,
        grpc_host=address.grpc.host,
        grpc_port=address.grpc.port,
        grpc_secure=address.grpc.secure,
        auth_credentials=Auth.api_key(address.api_key) if address.api_key else None,
        skip_init_checks=True,
    )
    try:
        collection = client.collections.use(COLLECTION)
        insert(collection.with_tenant("warm-up"), embedder, sentences[:ROWS_PER_GROUP])
        searched = collection.with_tenant("searched")
        insert(searched, embedder, sentences[:SEARCHED_ENTRIES])
        seconds = clock(lambda: insert(collection.with_tenant("added"), embedder, sentences))
        searches = [
            lambda q=query: searched.query.hybrid(q, vector=embedder.embed([q])[0].tolist(), limit=LIMIT)
            for query in queries
        ]
        return {"adds_per_second": round(len(sentences) / seconds), "search_ms_p50": p50(searches)}
    finally:
        client.collections.delete(COLLECTION)
        client.close()


def insert(tenant: Any, embedder: MiniLmEmbedder, sentences: Sequence[str]) -> None:
    from weaviate.classes.data import DataObject

    for start in range(0, len(sentences), ROWS_PER_GROUP):
        texts = sentences[start : start + ROWS_PER_GROUP]
        vectors = embedder.embed(texts)
        rows = [
            DataObject(
                properties={
                    "text": text,
                    "speaker": HEARD.speaker,
                    "time": HEARD.time.isoformat(),
                    "turn_ids": [HEARD.turn_id],
                    "scope": "added",
                    "entry_id": str(start + number),
                    "digest": f"{start + number:032x}",
                },
                vector=vector.tolist(),
            )
            for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]
        assert not tenant.data.insert_many(rows).errors


def p50(searches: Sequence[Callable[[], object]]) -> float:
    searches[0]()
    return round(statistics.median(map(clock, searches)) * 1e3, 2)


def clock(work: Callable[[], object]) -> float:
    """Wall seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    run_benchmark("bank_kinds", __doc__, measure)
