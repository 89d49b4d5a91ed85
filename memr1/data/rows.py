"""A dataset as flat rows for the suites, and a dataset without the rows that a suite rejected. Pure.

A column named `unknown_…` holds the offending value, or nothing: what a suite then reports is what the user wrote.
"""

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

from memr1.data.conversation import Conversation, Dataset, Question, RejectedRow, Session

Row = dict[str, Any]


def turn_rows(dataset: Dataset) -> list[Row]:
    """One row per turn, in spoken order: a row's number is its turn's place in the dataset."""
    return [row for item in dataset.conversations for row in _conversation_rows(item)]


def question_rows(dataset: Dataset) -> list[Row]:
    """One row per question, in the dataset's order."""
    turns = {item.id: {turn.id for _, turn in item.turns()} for item in dataset.conversations}
    home = {name: part for part, names in dataset.splits.model_dump().items() for name in names}
    return [_question_row(question, dataset.name, turns, home) for question in dataset.questions]


def flatten_row(row: Row) -> Row:
    """A row in which every list is joined to text, with its length beside it under `num_<name>`."""
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, (list, tuple)):
            flat[f"num_{name}"] = len(value)
            value = ", ".join(str(item) for item in value)
        flat[name] = value
    return flat


def remove_turns(dataset: Dataset, places: Collection[int]) -> tuple[Dataset, list[RejectedRow]]:
    """The dataset without the turns at these row numbers, nor the facts and operations that rest on them."""
    number = 0
    conversations: list[Conversation] = []
    lost: list[RejectedRow] = []
    for item in dataset.conversations:
        sessions: list[Session] = []
        for session in item.sessions:
            kept = tuple(turn for place, turn in enumerate(session.turns, number) if place not in places)
            number += len(session.turns)
            if kept:
                sessions.append(session.model_copy(update={"turns": kept}))
        conversation, facts = _keep_linked(item.model_copy(update={"sessions": tuple(sessions)}))
        conversations.append(conversation)
        lost += facts
    return dataset.model_copy(update={"conversations": tuple(conversations)}), lost


def remove_questions(dataset: Dataset, places: Collection[int]) -> Dataset:
    """The dataset without the questions at these row numbers."""
    kept = tuple(question for place, question in enumerate(dataset.questions) if place not in places)
    return dataset.model_copy(update={"questions": kept})


def _conversation_rows(item: Conversation) -> Iterator[Row]:
    waits = [0.0, *((later.time - earlier.time).total_seconds() for earlier, later in pairwise(item.sessions))]
    for session, wait in zip(item.sessions, waits, strict=False):
        for turn in session.turns:
            yield {
                "conversation_id": item.id,
                "session_id": session.id,
                "turn_id": turn.id,
                "speaker": turn.speaker,
                "unknown_speaker": None if turn.speaker in item.speakers else turn.speaker,
                "text": turn.text,
                "year": session.time.year,
                "seconds_since_last_session": wait,
            }


def _question_row(question: Question, dataset: str, turns: dict[str, set[str]], home: dict[str, str]) -> Row:
    known = turns.get(question.conversation_id)
    unknown = [turn_id for turn_id in question.evidence if turn_id not in (known or ())]
    return {
        "id": question.id,
        "conversation_id": question.conversation_id,
        "unknown_conversation": None if known is not None else question.conversation_id,
        "dataset": dataset,
        "split": home.get(question.conversation_id, ""),
        "text": question.text,
        "answer": question.answer,
        "category": question.category,
        "num_evidence": len(question.evidence),
        "unknown_evidence": ", ".join(unknown) or None,
    }


def _keep_linked(item: Conversation) -> tuple[Conversation, list[RejectedRow]]:
    known = {turn.id for _, turn in item.turns()}
    facts = tuple(fact for fact in item.facts if fact.turn_id in known)
    operations = tuple(operation for operation in item.expected_operations if operation.turn_id in known)
    lost = [
        RejectedRow(kind="fact", id=item.id, field="turn_id", value=fact.turn_id, reason="its turn was rejected")
        for fact in item.facts
        if fact.turn_id not in known
    ]
    return item.model_copy(update={"facts": facts, "expected_operations": operations}), lost
