"""The Answer Agent: picks the useful ones among the retrieved entries (distillation), then answers."""

from collections.abc import Sequence

from memr1.agents.generation import Generator
from memr1.agents.parsing import Answer, ParseFailure, parse_answer
from memr1.agents.prompting import AnswerPromptForm, render_answer_prompt
from memr1.bank.bank import MemoryBank
from memr1.bank.entry import MemoryEntry
from memr1.records import Record

__all__ = ["Answer", "AnswerAgent", "AnswerRequest", "retrieve_for_question"]


class AnswerRequest(Record):
    """A question and the entries retrieved for it, in the order they are shown."""

    question_id: str
    question: str
    memories: tuple[MemoryEntry, ...]


class AnswerAgent:
    """A language model that answers from memories. Greedy: the same memories give the same answer."""

    def __init__(
        self, generator: Generator, prompt: AnswerPromptForm, max_new_tokens: int, template: str | None = None
    ) -> None:
        """`template` replaces the text of the prompt form, for a pair that was trained on another wording."""
        self._generator = generator
        self._prompt: AnswerPromptForm = prompt
        self._max_new_tokens = max_new_tokens
        self._template = template

    @property
    def name(self) -> str:
        """The model's name."""
        return self._generator.name

    def answer(self, requests: Sequence[AnswerRequest]) -> list[Answer]:
        """One model call for all requests, one answer each, in order. Raises GenerationFailed.

        An output that does not parse is an answer too: with `failure`, and an empty text.
        """
        if not requests:
            return []
        prompts = [
            render_answer_prompt(self._prompt, request.memories, request.question, self._template)
            for request in requests
        ]
        completions = self._generator.sample_texts(prompts, max_new_tokens=self._max_new_tokens)
        return [_read_answer(*item) for item in zip(completions, requests, strict=True)]


def retrieve_for_question(
    bank: MemoryBank, question_text: str, speakers: Sequence[str], entries_per_speaker: int
) -> list[MemoryEntry]:
    """The best entries about each speaker, speaker after speaker (the paper: 30 of each of two)."""
    return [
        entry
        for speaker in speakers
        for entry in bank.retrieve(question_text, speaker=speaker, limit=entries_per_speaker)
    ]


def _read_answer(completion: str, request: AnswerRequest) -> Answer:
    parsed = parse_answer(completion, request.memories)
    if isinstance(parsed, ParseFailure):
        return Answer(text="", completion=parsed.text, failure=parsed.text)
    return parsed
