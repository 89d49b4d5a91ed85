"""memr1 with its default kind of bank: a journal, and a LanceDB table behind it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path

from stub import SHOWN, RememberingEmbedder, StubModel

from memr1.agents.bank_builder import build_banks
from memr1.agents.fact_extractor import TurnExtractor
from memr1.agents.generation import ScriptedGenerator
from memr1.agents.memory_manager import ManagerRequest, MemoryManager
from memr1.bank.bank import MemoryBank
from memr1.bank.operation import Operation, Source
from memr1.bank.stores import open_store
from memr1.config import LanceBank
from memr1.data.conversation import Conversation, Session, Turn

SPEAKER, TIME = "user", datetime(2024, 1, 1)


class Memr1Side:
    """See `stub.Side`."""

    def __init__(self, folder: Path, model: StubModel, embedder: RememberingEmbedder) -> None:
        self.model = model
        self._embedder = embedder
        self._store = open_store(LanceBank(), folder, embedder)
        self._manager = MemoryManager(ScriptedGenerator(self._reply), "compact", max_new_tokens=64)
        self._turn_ids = map(str, count(1))

    def add(self, user: str, text: str) -> None:
        """What the bank builder does with a turn: what was retrieved must still hold when the decision is applied."""
        bank, source = self._store.bank(user), self._source()
        with self._store.group_commits():
            request = ManagerRequest(
                scope=user,
                speaker=SPEAKER,
                time=TIME,
                turn_id=source.turn_id,
                facts=(text,),
                memories=tuple(bank.retrieve(text, speaker=SPEAKER, limit=SHOWN)),
            )
            decision = self._manager.decide([request])[0]
            bank.apply(decision.operations, source.model_copy(update={"failure": decision.failure}))

    def add_raw(self, user: str, text: str) -> None:
        self._store.bank(user).apply([Operation(kind="ADD", text=text)], self._source())

    def add_conversations(self, texts: Mapping[str, Sequence[str]]) -> None:
        conversations = [build_conversation(user, its) for user, its in texts.items()]
        build_banks(
            conversations,
            self._manager,
            TurnExtractor(),
            self._store,
            entries_per_turn=SHOWN,
            embedder=self._embedder,
        )

    def fill(self, user: str, texts: Sequence[str]) -> None:
        with self._store.group_commits():
            for text in texts:
                self.add_raw(user, text)

    def search(self, user: str, query: str, limit: int) -> list[str]:
        return [entry.text for entry in self._store.bank(user).retrieve(query, speaker=None, limit=limit)]

    def texts(self, user: str) -> list[str]:
        return [entry.text for entry in self._store.bank(user).entries()]

    def delete(self, user: str, text: str) -> None:
        bank = self._store.bank(user)
        bank.apply([Operation(kind="DELETE", entry_id=find_entry(bank, text))], self._source())

    def unreadable_outputs(self, user: str) -> list[str]:
        records = self._store.bank(user).journal()
        return [record.source.failure for record in records if record.source.failure is not None]

    def close(self) -> None:
        self._store.close()

    def _reply(self, prompt: str) -> str:
        """The stub's answer to a prompt of the compact form: reads the two parts of it that a policy needs."""
        memories, _, facts = prompt.removeprefix("memories:").removesuffix("\noperations:").rpartition("\nturn:\n")
        shown = [json.loads(line) for line in memories.splitlines() if line]
        return self.model.reply(facts.removeprefix(f"{SPEAKER}: "), {line["text"]: str(line["id"]) for line in shown})

    def _source(self) -> Source:
        return Source(turn_id=next(self._turn_ids), speaker=SPEAKER, time=TIME, policy="stub")


def build_conversation(user: str, texts: Sequence[str]) -> Conversation:
    """One turn per text."""
    turns = tuple(Turn(id=f"turn {number}", speaker=SPEAKER, text=text) for number, text in enumerate(texts))
    return Conversation(id=user, speakers=(SPEAKER,), sessions=(Session(id="1", time=TIME, turns=turns),))


def find_entry(bank: MemoryBank, text: str) -> str:
    return next(entry.id for entry in bank.entries() if entry.text == text)
