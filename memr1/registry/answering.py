"""Answers questions over conversations that were never seen before: what the registered pair does when it is served.

A conversation is read once, by the Memory Manager, and its bank kept: further questions about it cost one answer.
"""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from memr1.agents.answer_agent import AnswerRequest, retrieve_for_question
from memr1.agents.bank_builder import build_banks
from memr1.agents.pair import AgentPair
from memr1.bank.bank import MemoryBank
from memr1.bank.embedding import Embedder
from memr1.bank.in_memory import InMemoryStore
from memr1.data.conversation import Conversation
from memr1.data.source import SourceFile
from memr1.data.transcript import parse_transcript
from memr1.errors import DatasetFormatError

MAX_BANKS = 256  # conversations whose banks are kept; the one asked about least recently goes first


class PairServer:
    """A loaded pair and the banks of the conversations it has read. Safe to call from several threads."""

    def __init__(self, pair: AgentPair, embedder: Embedder) -> None:
        self._pair = pair
        self._embedder = embedder
        self._banks: dict[str, tuple[MemoryBank, tuple[str, ...]]] = {}  # by the conversation's digest; with speakers
        self._lock = threading.Lock()

    def answer(self, conversations: Sequence[str], questions: Sequence[str]) -> list[str]:
        """One answer per question; `conversations[i]` is the JSON text of the conversation that question i is about.

        An output that does not parse is an empty answer. Raises DatasetFormatError for what is no conversation.
        """
        keys = [_digest(text) for text in conversations]
        with self._lock:
            self._read(dict(zip(keys, conversations, strict=True)))
            answers = self._pair.answer_agent.answer(
                [self._request(key, question) for key, question in zip(keys, questions, strict=True)]
            )
            self._forget(keep=set(keys))
        return ["" if answer.failure is not None else answer.text for answer in answers]

    def _read(self, texts: dict[str, str]) -> None:
        """Build the banks of the conversations not read before, all in one go."""
        # A caller's ids may repeat; the digest is the scope, so that no bank ever holds two conversations.
        new = [
            parse_conversation(text).model_copy(update={"id": key})
            for key, text in texts.items()
            if key not in self._banks
        ]
        if new:
            store = InMemoryStore(self._embedder)
            build_banks(
                new,
                self._pair.manager,
                self._pair.extractor,
                store,
                entries_per_turn=self._pair.settings.retrieval.entries_per_turn,
                embedder=self._embedder,
            )
            self._banks.update((item.id, (store.bank(item.id), item.speakers)) for item in new)

    def _request(self, key: str, question: str) -> AnswerRequest:
        bank, speakers = self._banks[key] = self._banks.pop(key)  # the latest asked about stands last
        limit = self._pair.settings.retrieval.entries_per_speaker
        memories = retrieve_for_question(bank, question, speakers, limit)
        return AnswerRequest(question_id=key, question=question, memories=tuple(memories))

    def _forget(self, keep: set[str]) -> None:
        surplus = max(0, len(self._banks) - MAX_BANKS)
        for key in list(self._banks)[:surplus]:
            if key not in keep:
                del self._banks[key]


def parse_conversation(text: str) -> Conversation:
    """A conversation as memr1 writes it (a line of conversations.jsonl) or in the transcript format of docs/data.md."""
    try:
        return Conversation.model_validate_json(text)
    except ValidationError:
        contents = parse_transcript(SourceFile(Path("conversation.json"), text, sha256=""))
    if len(contents.conversations) != 1:
        raise DatasetFormatError(
            f"the column `conversation` must hold one conversation per row (got {len(contents.conversations)})"
        )
    return contents.conversations[0]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
