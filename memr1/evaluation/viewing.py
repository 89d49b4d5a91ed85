"""The answers of an evaluation as a bank's page shows them: beside the question, with the memories behind each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from memr1.bank.entry import MemoryEntry
from memr1.bank.view import ViewedAnswer, ViewedQuestion, find_memory
from memr1.data.conversation import Question
from memr1.errors import EvaluationError
from memr1.evaluation.scores import ScoredAnswer, group_by_system


def read_system_answers(path: Path, system: str | None) -> list[ScoredAnswer]:
    """One system's answers; `system` may be None where there is only one. Leaves the file as it is.

    A last line that is cut short is left out: the evaluation may be going on. Raises EvaluationError.
    """
    try:
        lines = path.read_bytes().split(b"\n")
        groups = group_by_system(ScoredAnswer.model_validate_json(line) for line in lines[:-1])
    except (OSError, ValidationError) as error:
        raise EvaluationError(f"cannot read answers in {path}: {error}") from error
    if system is None and len(groups) <= 1:
        return next(iter(groups.values()), [])
    if system is None or system not in groups:
        wanted = "name a system" if system is None else f"{path} has no answers of {system!r}"
        raise EvaluationError(f"{wanted}: it holds answers of {', '.join(groups) or 'none'}")
    return groups[system]


def view_questions(
    scope: str,
    questions: Sequence[Question],
    answers: Sequence[ScoredAnswer],
    entries: Sequence[MemoryEntry],
    categories: Mapping[int, str],
) -> list[ViewedQuestion]:
    """The questions about a conversation, with their answers; those that only the answers know come last.

    `entries` is the finished bank, which the answers were given from.
    """
    viewed = {
        item.id: ViewedQuestion(
            id=item.id,
            category=_name_category(item.category, categories),
            text=item.text,
            gold=item.answer,
            evidence=item.evidence,
        )
        for item in questions
        if item.conversation_id == scope
    }
    for item in answers:
        if item.conversation_id == scope:
            known = viewed.get(item.question_id) or _view_unknown(item, categories)
            viewed[item.question_id] = known.model_copy(update={"answer": _view_answer(item, entries)})
    return list(viewed.values())


def _view_unknown(item: ScoredAnswer, categories: Mapping[int, str]) -> ViewedQuestion:
    """A question that is known from its answer alone."""
    return ViewedQuestion(
        id=item.question_id,
        category=_name_category(item.category, categories),
        text=item.question,
        gold=item.gold,
    )


def _name_category(number: int, names: Mapping[int, str]) -> str:
    return f"{number}, {names[number]}" if number in names else str(number)


def _view_answer(item: ScoredAnswer, entries: Sequence[MemoryEntry]) -> ViewedAnswer:
    return ViewedAnswer(
        text=item.answer,
        is_right=item.exact_match == 1.0,
        f1=item.f1,
        memories=tuple(find_memory(text, entries) for text in item.memories),
        num_retrieved=item.num_retrieved,
        failure=item.failure,
    )
