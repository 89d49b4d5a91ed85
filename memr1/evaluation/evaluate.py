"""Evaluates one system: its Memory Manager reads the held-out conversations, its Answer Agent answers about them.

A system's folder holds the journal of its banks (`bank/`), `answers.jsonl`, and `score.json`, written last. Killed
anywhere, it continues: turns that are in the journal are not read again, answers that were written are not asked again.
Systems are run side by side by `memr1.evaluation.launch` and compared by `memr1.evaluation.report`.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from memr1.agents.answer_agent import AnswerAgent, AnswerRequest, retrieve_for_question
from memr1.agents.bank_builder import BuildSummary, build_banks
from memr1.agents.fact_extractor import FactExtractor
from memr1.agents.memory_manager import ManagerPolicy
from memr1.agents.pair import PairSettings
from memr1.agents.parsing import Answer
from memr1.bank.bank import BankStore
from memr1.bank.embedding import Embedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.retrieval import embedded_part
from memr1.data.conversation import Conversation, Dataset, Question
from memr1.errors import EvaluationError
from memr1.evaluation.scores import BuildFigures, ScoredAnswer, SystemScore, score_answer, score_system
from memr1.records import read_jsonl, write_json

log = logging.getLogger(__name__)
QUESTIONS_AT_ONCE = 256  # answered together, then written: what a killed evaluation loses at most
MIN_OUTPUTS_TO_JUDGE = 50
OnStep = Callable[[str, int, int], None]  # phase ("reading" or "answering"), steps done, steps in all


class EvaluatedPair(Protocol):
    """The parts of an agent pair that an evaluation uses; `memr1.agents.pair.AgentPair` has them."""

    @property
    def manager(self) -> ManagerPolicy: ...

    @property
    def answer_agent(self) -> AnswerAgent: ...

    @property
    def extractor(self) -> FactExtractor: ...

    @property
    def settings(self) -> PairSettings: ...


def evaluate_system(
    name: str,
    pair: EvaluatedPair,
    dataset: Dataset,
    conversation_ids: Sequence[str],
    embedder: Embedder,
    folder: Path,
    *,
    on_step: OnStep = lambda phase, done, total: None,
) -> SystemScore:
    """Build the banks of these conversations, answer every question about them, score, and seal the folder.

    Raises EvaluationError when there is nothing to ask, AgentError when the models print nothing that parses.
    """
    started = time.monotonic()
    conversations, questions = held_out(dataset, conversation_ids)
    store = InMemoryStore(embedder, folder / "bank")
    try:
        summary = build_banks(
            conversations,
            pair.manager,
            pair.extractor,
            store,
            entries_per_turn=pair.settings.retrieval.entries_per_turn,
            embedder=embedder,
            on_step=lambda done, total: on_step("reading", done, total),
        )
        asking = _Asking(name, pair, dataset.name == "locomo", conversations, store)
        answers = _answer_all(asking, questions, embedder, folder / "answers.jsonl", on_step)
        build = _build_figures(summary)
        _refuse_garbage(name, answers)
    finally:
        store.close()
    score = score_system(answers, build, time.monotonic() - started)
    write_json(folder / "score.json", score.model_dump(mode="json"))
    return score


def held_out(dataset: Dataset, conversation_ids: Sequence[str]) -> tuple[list[Conversation], list[Question]]:
    """The named conversations, in this order, and all questions about them. Raises EvaluationError for none."""
    by_id = {conversation.id: conversation for conversation in dataset.conversations}
    unknown = [key for key in conversation_ids if key not in by_id]
    if unknown:
        raise EvaluationError(
            f"dataset {dataset.name} has no conversation {unknown[0]!r}: choose among {list(by_id)[:5]}…"
        )
    wanted = set(conversation_ids)
    questions = [question for question in dataset.questions if question.conversation_id in wanted]
    if not questions:
        raise EvaluationError(
            f"no question about the {len(wanted)} held-out conversations of {dataset.name}: there is nothing to score. "
            "Add questions with answers about them."
        )
    return [by_id[key] for key in conversation_ids], questions


def read_answers(path: Path) -> list[ScoredAnswer]:
    """The whole answers in a file that may have been cut off; none when there is no file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return list(read_jsonl(path, ScoredAnswer))


class _Asking:
    """Asks one system: retrieves for each question from its conversation's bank, answers in one batch, scores."""

    def __init__(
        self, name: str, pair: EvaluatedPair, is_locomo: bool, conversations: Sequence[Conversation], store: BankStore
    ) -> None:
        self._name = name
        self._answer_agent = pair.answer_agent
        self._entries_per_speaker = pair.settings.retrieval.entries_per_speaker
        self._is_locomo = is_locomo
        self._speakers = {conversation.id: conversation.speakers for conversation in conversations}
        self._banks = {conversation.id: store.bank(conversation.id) for conversation in conversations}
        self._kept = {key: turns_behind(bank.entries()) for key, bank in self._banks.items()}

    def ask(self, questions: Sequence[Question]) -> list[ScoredAnswer]:
        """One scored answer per question, in order."""
        retrieved = [self._retrieve(question) for question in questions]
        answers = self._answer_agent.answer(
            [
                AnswerRequest(question_id=question.id, question=question.text, memories=tuple(memories))
                for question, memories in zip(questions, retrieved, strict=True)
            ]
        )
        return [self._score(*item) for item in zip(questions, answers, retrieved, strict=True)]

    def embedded_questions(self, questions: Sequence[Question]) -> list[str]:
        """What retrieval will embed of each question."""
        return [embedded_part(question.text, self._speakers[question.conversation_id]) for question in questions]

    def _retrieve(self, question: Question) -> list[MemoryEntry]:
        key = question.conversation_id
        return retrieve_for_question(self._banks[key], question.text, self._speakers[key], self._entries_per_speaker)

    def _score(self, question: Question, answer: Answer, memories: Sequence[MemoryEntry]) -> ScoredAnswer:
        texts = {entry.id: entry.text for entry in memories}
        return score_answer(
            self._name,
            question,
            answer.text,
            memories=[texts[entry_id] for entry_id in answer.memory_ids],
            num_retrieved=len(memories),
            retrieved_turns=turns_behind(memories),
            kept_turns=self._kept[question.conversation_id],
            failure=answer.failure,
            is_locomo=self._is_locomo,
        )


def turns_behind(entries: Sequence[MemoryEntry]) -> set[str]:
    """Ids of the turns that the entries rest on."""
    return {turn_id for entry in entries for turn_id in entry.turn_ids}


def _answer_all(
    asking: _Asking, questions: Sequence[Question], embedder: Embedder, path: Path, on_step: OnStep
) -> list[ScoredAnswer]:
    """Every question's answer in the questions' order; `path` grows by one batch at a time."""
    known = {answer.question_id: answer for answer in read_answers(path)}
    missing = [question for question in questions if question.id not in known]
    embedder.embed(asking.embedded_questions(missing))  # remembered: one batch instead of one call each
    for batch in _batches(missing, QUESTIONS_AT_ONCE):
        on_step("answering", len(known), len(questions))
        answers = asking.ask(batch)
        _append_answers(path, answers)
        known.update((answer.question_id, answer) for answer in answers)
    on_step("answering", len(known), len(questions))
    return [known[question.id] for question in questions]


def _append_answers(path: Path, answers: Sequence[ScoredAnswer]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(answer.model_dump_json() + "\n" for answer in answers))


def _batches(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    for start in range(0, len(questions), size):
        yield questions[start : start + size]


def _refuse_garbage(name: str, answers: Sequence[ScoredAnswer]) -> None:
    """A bad answer is data; a model that never prints an answer is an error."""
    if len(answers) >= MIN_OUTPUTS_TO_JUDGE and all(answer.failure is not None for answer in answers):
        raise EvaluationError(
            f"none of the {len(answers)} outputs of {name}'s Answer Agent can be read as an answer. The first: "
            f"{str(answers[0].failure)[:200]!r}. Choose another model, or the prompt form that it knows."
        )


def _build_figures(summary: BuildSummary) -> BuildFigures:
    return BuildFigures(
        num_turns=summary.num_turns,
        num_manager_calls=summary.num_calls,
        num_manager_failures=summary.num_parse_failures,
        operations={str(kind): number for kind, number in summary.operations.items()},
        num_entries=summary.num_entries,
    )
