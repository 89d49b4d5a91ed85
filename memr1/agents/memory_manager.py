"""The Memory Manager: reads a turn's facts beside related memory entries and decides what the bank should hold."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from memr1.agents.generation import Generator
from memr1.agents.parsing import ParseFailure, parse_operations
from memr1.agents.prompting import PromptForm, render_manager_prompt
from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import Operation
from memr1.records import Record


class ManagerRequest(Record):
    """One turn to decide on: its facts (one line each) and the entries shown beside them, best first.

    `scope` names the bank; no model sees it.
    """

    scope: str
    speaker: str
    time: datetime
    turn_id: str
    facts: tuple[str, ...]
    memories: tuple[MemoryEntry, ...]


class ManagerDecision(Record):
    """What to do to the bank. With `failure` (the offending text) there is nothing to do, and `reason` says why."""

    operations: tuple[Operation, ...]
    failure: str | None = None
    reason: str = ""
    completion: str = ""


class ManagerPolicy(Protocol):
    """Anything that decides on turns. `name` stands in the journal beside every operation it asked for."""

    @property
    def name(self) -> str: ...

    def decide(self, requests: Sequence[ManagerRequest]) -> list[ManagerDecision]:
        """One decision per request, in order."""
        ...


class MemoryManager:
    """A language model as ManagerPolicy. Greedy: the same bank and turn give the same decision."""

    def __init__(
        self, generator: Generator, prompt: PromptForm, max_new_tokens: int, template: str | None = None
    ) -> None:
        """`template` replaces the text of the prompt form, for a pair that was trained on another wording."""
        self._generator = generator
        self._prompt: PromptForm = prompt
        self._max_new_tokens = max_new_tokens
        self._template = template

    @property
    def name(self) -> str:
        """The model's name."""
        return self._generator.name

    def decide(self, requests: Sequence[ManagerRequest]) -> list[ManagerDecision]:
        """One model call for all requests. Raises GenerationFailed; an output that does not parse is a decision."""
        if not requests:
            return []
        prompts = [
            render_manager_prompt(self._prompt, request.memories, request.facts, self._template) for request in requests
        ]
        completions = self._generator.sample_texts(prompts, max_new_tokens=self._max_new_tokens)
        return [read_decision(*item) for item in zip(completions, requests, strict=True)]


def read_decision(completion: str, request: ManagerRequest) -> ManagerDecision:
    """What a model's output asks for; an output that does not parse asks for nothing."""
    parsed = parse_operations(completion, request.memories)
    if isinstance(parsed, ParseFailure):
        return ManagerDecision(operations=(), failure=parsed.text, reason=parsed.reason, completion=parsed.text)
    return ManagerDecision(operations=parsed, completion=completion.encode("utf-8", "replace").decode("utf-8"))
