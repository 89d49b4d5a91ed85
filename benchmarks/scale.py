"""Building the banks of many conversations: turns a second, and whether memory grows with their number.

    python benchmarks/scale.py [--quick] [--out FILE.json]

Synthetic conversations of 100 turns each, read from a file one by one. The scripted policy does at every turn what the
world expects, through the prompt and the parser that a model goes through: the figures are those of everything but the
models. An entry that it must change and is not shown is `missed`: a change is added then, a removal left out.

build       a new LanceDB store (the default), in a process of its own
open again  the finished store of the largest build, opened by another process that finds nothing left to read
peak_mib    the most physical memory that the process ever had (VmHWM), imports included
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from harness import memory_field, run_benchmark

from memr1.agents.bank_builder import build_banks
from memr1.agents.fact_extractor import TurnExtractor
from memr1.agents.generation import ScriptedGenerator
from memr1.agents.memory_manager import ManagerDecision, ManagerRequest, MemoryManager
from memr1.bank.embedding import HashEmbedder, MiniLmEmbedder
from memr1.bank.stores import open_store
from memr1.config import LanceBank
from memr1.console import render_table
from memr1.data.conversation import Conversation, ExpectedOperation
from memr1.data.synthetic import SyntheticOptions, World, build_synthetic_dataset

TURNS, ENTRIES_PER_TURN, AT_ONCE = 100, 10, 64
WORLD = World(
    easy_words=False,
    people_per_conversation=5,
    changes_per_fact=1,
    dated_changes=False,
    num_changed=15,
    num_steady=20,
    num_removed=(5, 5),
    num_repeats=15,
    num_small_talk=30,
    num_sessions=8,
    question_kinds=(1,),
)
EMBEDDERS: dict[str, Callable[[], Any]] = {"hash": HashEmbedder, "MiniLM": MiniLmEmbedder}


class Work(NamedTuple):
    what: str
    num_conversations: int
    embedder: str


def measure(options: argparse.Namespace) -> dict[str, Any]:
    few, many = (20, 60) if options.quick else (100, 1_000)
    works = [Work("build", few, "hash"), Work("build", many, "hash"), Work("open again", many, "hash")]
    works += [] if options.quick else [Work("build", few // 5, "MiniLM")]
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_conversations(folder / "conversations.jsonl", many)
        rows = [in_process(work, folder) for work in works]
    ratio = round(rows[1]["peak_mib"] / rows[0]["peak_mib"], 3)
    return {"conversations_at_once": AT_ONCE, "peak_of_many_to_few": ratio, "rows": rows}


def in_process(work: Work, folder: Path) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(run, work, folder).result()


def run(work: Work, folder: Path) -> dict[str, Any]:
    """Build, or open again, and say what it took."""
    conversations = StoredConversations(folder / "conversations.jsonl", work.num_conversations)
    embedder = EMBEDDERS[work.embedder]()
    embedder.embed(["the model is loaded"])
    manager = ExpectedManager(conversations)
    place = folder / f"{work.num_conversations} {work.embedder}"
    wall, processor = time.perf_counter(), time.process_time()
    with closing(open_store(LanceBank(), place, embedder)) as store:
        summary = build_banks(
            conversations,
            manager,
            TurnExtractor(),
            store,
            entries_per_turn=ENTRIES_PER_TURN,
            embedder=embedder,
            conversations_at_once=AT_ONCE,
        )
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        **work._asdict(),
        "turns": summary.num_turns,
        "read": summary.num_facts,
        "entries": summary.num_entries,
        "operations": summary.operations,
        "missed": manager.num_missed,
        "seconds": round(wall, 1),
        "turns_per_second": round(summary.num_turns / wall),
        "turns_per_processor_second": round(summary.num_turns / processor),
        "peak_mib": round(memory_field("VmHWM") / 1024),
    }


class StoredConversations(Sequence[Conversation]):
    """The first of a file's conversations, each read when it is asked for."""

    def __init__(self, path: Path, number: int) -> None:
        self._path, self._places = path, []
        with path.open("rb") as file:
            for _ in range(number):
                self._places.append(file.tell())
                file.readline()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        with self._path.open("rb") as file:
            file.seek(self._places[place])
            return Conversation.model_validate_json(file.readline())


class ExpectedManager:
    """Does what the world expects of a faultless Memory Manager, in the words of a model."""

    name = "scripted"

    def __init__(self, conversations: StoredConversations) -> None:
        self.num_missed = 0
        self._expected = lru_cache(maxsize=AT_ONCE)(lambda place: expected_operations(conversations[place]))

    def decide(self, requests: Sequence[ManagerRequest]) -> list[ManagerDecision]:
        """See `memr1.agents.memory_manager.ManagerPolicy`."""
        replies = [json.dumps({"operations": list(self._operations(request))}) for request in requests]
        return MemoryManager(ScriptedGenerator(replies), "compact", 64).decide(requests)

    def _operations(self, request: ManagerRequest) -> Iterator[dict[str, object]]:
        wanted = self._expected(int(request.scope.rpartition("-")[2])).get(request.turn_id)
        if wanted is None or wanted.kind == "NOOP":
            return
        if wanted.kind == "ADD":
            yield {"op": "ADD", "text": wanted.text}
            return
        shown = [entry.text for entry in request.memories]
        if wanted.replaces in shown:
            yield {"op": wanted.kind, "id": shown.index(wanted.replaces) + 1, "text": wanted.text}
            return
        self.num_missed += 1
        if wanted.kind == "UPDATE":
            yield {"op": "ADD", "text": wanted.text}


def expected_operations(conversation: Conversation) -> dict[str, ExpectedOperation]:
    return {operation.turn_id: operation for operation in conversation.expected_operations}


def write_conversations(path: Path, number: int) -> None:
    options = SyntheticOptions(level="full", num_train=number, num_validation=1, num_test=1, world=WORLD)
    conversations = build_synthetic_dataset(options, seed=7).conversations[:number]
    assert all(len(conversation.turns()) == TURNS for conversation in conversations)
    path.write_text("".join(f"{conversation.model_dump_json()}\n" for conversation in conversations))


def show(figures: Mapping[str, Any]) -> str:
    names = ["what", "num_conversations", "embedder", "turns", "read", "entries", "missed", "seconds"]
    names += ["turns_per_second", "turns_per_processor_second", "peak_mib"]
    rows = [
        [f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in names]
        for row in figures["rows"]
    ]
    table = render_table([name.replace("_", " ") for name in names], rows)
    return f"{table}\nthe peak of many to that of few: {figures['peak_of_many_to_few']}"


if __name__ == "__main__":
    run_benchmark("scale", __doc__, measure, show)
