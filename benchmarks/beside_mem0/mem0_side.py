"""mem0 as its documentation sets it up for one machine: Qdrant's embedded store in a folder, history in SQLite."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mem0 import Memory
from stub import RememberingEmbedder, StubModel

ALL = 1_000_000  # get_all returns 20 unless told


class Mem0Side:
    """See `stub.Side`."""

    def __init__(self, folder: Path, model: StubModel, embedder: RememberingEmbedder) -> None:
        self.model = model
        store = {"collection_name": "memories", "embedding_model_dims": embedder.dimension, "path": f"{folder}/qdrant"}
        nobody = {"provider": "openai", "config": {"api_key": "not used: replaced below"}}
        self._memory: Any = Memory.from_config(
            {
                "vector_store": {"provider": "qdrant", "config": store},
                "llm": nobody,
                "embedder": nobody,
                "history_db_path": f"{folder}/history.db",
            }
        )
        self._memory.llm = _Model(model)
        self._memory.embedding_model = _Embedder(embedder)

    def add(self, user: str, text: str) -> None:
        self._memory.add(text, user_id=user)

    def add_raw(self, user: str, text: str) -> None:
        self._memory.add(text, user_id=user, infer=False)

    def add_conversations(self, texts: Mapping[str, Sequence[str]]) -> None:
        """One turn of every user after another: with a model that answers at once, threads would gain nothing."""
        for turn in zip(*texts.values(), strict=True):
            for user, text in zip(texts, turn, strict=True):
                self.add(user, text)

    def fill(self, user: str, texts: Sequence[str]) -> None:
        self._memory.add([{"role": "user", "content": text} for text in texts], user_id=user, infer=False)

    def search(self, user: str, query: str, limit: int) -> list[str]:
        found = self._memory.search(query, filters={"user_id": user}, top_k=limit)["results"]
        return [memory["memory"] for memory in found]

    def texts(self, user: str) -> list[str]:
        return [memory["memory"] for memory in self._all(user)]

    def delete(self, user: str, text: str) -> None:
        self._memory.delete(next(memory["id"] for memory in self._all(user) if memory["memory"] == text))

    def unreadable_outputs(self, user: str) -> list[str]:
        """None: mem0 writes an error to its log, and has no place where the output would be."""
        return []

    def close(self) -> None:
        self._memory.vector_store.client.close()
        self._memory.close()

    def _all(self, user: str) -> list[dict[str, Any]]:
        return list(self._memory.get_all(filters={"user_id": user}, top_k=ALL)["results"])


class _Model:
    """In the place of mem0's client for a model: reads the two parts of the prompt that a policy needs."""

    def __init__(self, model: StubModel) -> None:
        self._model = model

    def generate_response(self, messages: Sequence[Mapping[str, str]], **_: object) -> str:
        prompt = messages[-1]["content"]
        memories = json.loads(_section(prompt, "Existing Memories"))
        new = _section(prompt, "New Messages").removeprefix("user: ").strip()
        return self._model.reply(new, {memory["text"]: memory["id"] for memory in memories})


class _Embedder:
    """In the place of mem0's client for an embedding model."""

    def __init__(self, embedder: RememberingEmbedder) -> None:
        self._embedder = embedder

    def embed(self, text: str, memory_action: str | None = None) -> list[float]:
        return list(self._embedder.vector(text).tolist())

    def embed_batch(self, texts: Sequence[str], memory_action: str | None = None) -> list[list[float]]:
        return [self.embed(text) for text in texts]


def _section(prompt: str, title: str) -> str:
    return prompt.partition(f"## {title}\n")[2].partition("\n\n## ")[0]
