"""Fact extraction: from a turn to candidate statements, not yet stored. It is not trained.

turn           the turn itself, introduced by its speaker
observations   the statements that came with the dataset
llm            a language model's reading of the turn, the three turns before it shown as context
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from memr1.agents.generation import Generator
from memr1.agents.generators import build_generator
from memr1.agents.parsing import without_reasoning
from memr1.agents.prompting import render_extraction_prompt
from memr1.config import ExtractionConfig
from memr1.data.conversation import Conversation, Fact, Session, Turn
from memr1.environment import cache_folder
from memr1.errors import ConfigError
from memr1.records import Record

log = logging.getLogger(__name__)
Spoken = tuple[Conversation, Session, Turn]

CONTEXT_TURNS = 3  # "me too" says nothing without the turn before it


class FactExtractor(Protocol):
    """Anything that finds facts in turns."""

    def extract(self, turns: Sequence[Spoken]) -> list[list[Fact]]:
        """The facts of each turn, in order; a turn without any gives an empty list."""
        ...


class TurnExtractor:
    """The turn itself is its only fact: "Ann: I live in Rome." An image is told by its caption."""

    def extract(self, turns: Sequence[Spoken]) -> list[list[Fact]]:
        """One fact for every turn that says anything."""
        return [_whole_turn(turn) for _, _, turn in turns]


class ObservationExtractor:
    """The statements that came with the dataset (LoCoMo's observations)."""

    def extract(self, turns: Sequence[Spoken]) -> list[list[Fact]]:
        """Raises ConfigError for a conversation that came without any statement."""
        return [_statements(conversation, turn) for conversation, _, turn in turns]


class ModelExtractor:
    """A language model's reading of each turn.

    A reply that cannot be read gives no fact; it is counted in `num_unreadable` and logged with its turn.
    """

    def __init__(self, generator: Generator, max_new_tokens: int) -> None:
        self._generator = generator
        self._max_new_tokens = max_new_tokens
        self.num_unreadable = 0

    def extract(self, turns: Sequence[Spoken]) -> list[list[Fact]]:
        """One model call for all turns. Raises GenerationFailed."""
        prompts = [_extraction_prompt(session, turn) for _, session, turn in turns]
        replies = self._generator.sample_texts(prompts, max_new_tokens=self._max_new_tokens) if prompts else []
        return [self._read(*item) for item in zip(replies, turns, strict=True)]

    def _read(self, reply: str, spoken: Spoken) -> list[Fact]:
        conversation, _, turn = spoken
        texts = parse_facts(reply)
        if texts is None:
            self.num_unreadable += 1
            log.warning("no facts can be read for turn %s of %s: %.200r", turn.id, conversation.id, reply)
            return []
        return [Fact(speaker=turn.speaker, text=text, turn_id=turn.id) for text in texts]


class FactsOfTurn(Record):
    """A line of a remembering extractor's file."""

    key: str  # digest of the turn and of the settings it was read with
    facts: tuple[Fact, ...]


class RememberingExtractor:
    """Asks another extractor once per turn and keeps what it found in a file: a model costs, and may not say the same
    twice. Several processes may share the file; what one wrote first holds for all."""

    def __init__(self, extractor: FactExtractor, path: Path, settings: str) -> None:
        """`settings` names whatever else decides on the facts (model, limits): other settings, other facts."""
        self._extractor = extractor
        self._path = path
        self._settings = settings
        self._known: dict[str, list[Fact]] = {}
        self._read_to = 0  # bytes of the file that are in `_known`

    def extract(self, turns: Sequence[Spoken]) -> list[list[Fact]]:
        """Only turns never asked about before cost a call."""
        keys = [self._key(item) for item in turns]
        if not self._known.keys() >= set(keys):
            self._catch_up()
            unknown = {key: item for key, item in zip(keys, turns, strict=True) if key not in self._known}
            self._remember(dict(zip(unknown, self._extractor.extract(list(unknown.values())), strict=True)))
        return [self._known[key] for key in keys]

    def _remember(self, found: dict[str, list[Fact]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0, os.SEEK_END)  # others may have written while we waited for the lock
            self._catch_up()
            new = {key: facts for key, facts in found.items() if key not in self._known}
            lines = [FactsOfTurn(key=key, facts=tuple(facts)).model_dump_json() + "\n" for key, facts in new.items()]
            # A line that a kill cut off is ended first, so that it spoils nothing but itself.
            file.write(("" if file.tell() == self._read_to else "\n").encode() + "".join(lines).encode())
        self._known.update(new)

    def _catch_up(self) -> None:
        """Take over the whole lines that were written since the last look, by this process or another."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_to += len(line)
                self._take_over(line)

    def _take_over(self, line: bytes) -> None:
        try:
            item = FactsOfTurn.model_validate_json(line)
        except ValidationError:
            if line.strip():
                log.warning("%s: skipped a line that a crash had cut off; its turn is read again", self._path)
        else:
            self._known.setdefault(item.key, list(item.facts))

    def _key(self, spoken: Spoken) -> str:
        conversation, session, turn = spoken
        parts = [self._settings, conversation.id, turn.id, _extraction_prompt(session, turn)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def build_extractor(config: ExtractionConfig, remember: Path | None = None) -> FactExtractor:
    """The configured extractor. What a model found is kept in `remember` ($MEMR1_HOME/cache/facts.jsonl by default).

    Raises ConfigError for kind llm without a generator.
    """
    if config.kind == "turn":
        return TurnExtractor()
    if config.kind == "observations":
        return ObservationExtractor()
    if config.generator is None:
        raise ConfigError("extraction.kind is llm, but no model is named: set extraction.generator")
    extractor = ModelExtractor(build_generator(config.generator, None), config.max_new_tokens)
    return RememberingExtractor(extractor, remember or cache_folder() / "facts.jsonl", config.model_dump_json())


def parse_facts(reply: str) -> list[str] | None:
    """The texts under "facts" of a JSON reply (code fences and prose around it are skipped); None when there are none.

    Never raises on text.
    """
    said = without_reasoning(reply)
    start = said.find("{")
    try:
        tree: Any = json.JSONDecoder(strict=False).raw_decode(said, max(start, 0))[0]
    except (ValueError, RecursionError):
        return None
    facts = tree.get("facts") if isinstance(tree, dict) else None
    if not isinstance(facts, list):
        return None
    texts = [" ".join(fact.encode("utf-8", "replace").decode().split()) for fact in facts if isinstance(fact, str)]
    return [text for text in texts if text]


def _statements(conversation: Conversation, turn: Turn) -> list[Fact]:
    if not conversation.facts:
        raise ConfigError(
            f"extraction.kind is observations, but conversation {conversation.id!r} came with none: use turn or llm"
        )
    return [fact for fact in conversation.facts if fact.turn_id == turn.id]


def _whole_turn(turn: Turn) -> list[Fact]:
    said = _said(turn)
    return [Fact(speaker=turn.speaker, text=f"{turn.speaker}: {said}", turn_id=turn.id)] if said else []


def _said(turn: Turn) -> str:
    caption = f" [shares an image: {turn.image_caption}]" if turn.image_caption else ""
    return " ".join((turn.text + caption).split())


def _extraction_prompt(session: Session, turn: Turn) -> str:
    place = next(number for number, item in enumerate(session.turns) if item.id == turn.id)
    context = session.turns[max(0, place - CONTEXT_TURNS) : place + 1]
    return render_extraction_prompt(turn.speaker, session.time, [f"{item.speaker}: {_said(item)}" for item in context])
