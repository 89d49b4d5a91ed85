"""LongMemEval's JSON files (xiaowu0162/LongMemEval): one record is one question with its own haystack of chat sessions.

For scoring a trained pair (`memr1 evaluate --data`): every record becomes a held-out conversation between "user" and
"assistant". The question carries its date, as the official prompt does, since "last month" means nothing without it.
Evidence is the turns marked `has_answer`. Sessions are put in order of time (the oracle file is unsorted).
"""

from typing import Any

from pydantic import Field

from memr1.data.conversation import Conversation, Question, Session, Turn
from memr1.data.source import Contents, SourceFile, order_evidence, parse_as, parse_json, parse_time
from memr1.errors import DatasetFormatError
from memr1.records import Record

CATEGORIES = {
    "single-session-user": 1,
    "single-session-assistant": 2,
    "single-session-preference": 3,
    "multi-session": 4,
    "knowledge-update": 5,
    "temporal-reasoning": 6,
}
ABSTENTION = 7  # question ids that end in _abs, whatever their type: the right answer is that nobody said it

_DATE_FORMATS = ("%Y/%m/%d (%a) %H:%M",)


class _RawTurn(Record, extra="ignore"):
    role: str
    content: str
    has_answer: bool = False


class _RawRecord(Record, extra="ignore"):
    question_id: str = Field(min_length=1)
    question_type: str
    question: str
    answer: str | int | float
    question_date: str
    haystack_dates: tuple[str, ...]
    haystack_sessions: tuple[tuple[_RawTurn, ...], ...] = Field(min_length=1)


def is_longmemeval(value: Any) -> bool:
    """Whether parsed JSON looks like LongMemEval's records."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "haystack_sessions" in value[0]


def parse_longmemeval(source: SourceFile) -> Contents:
    """Parse a LongMemEval file. Raises DatasetFormatError with record and field."""
    records = parse_json(source.text, str(source.path))
    pairs = [_parse_record(record, f"{source.path}[{number}]") for number, record in enumerate(records)]
    return Contents(
        conversations=tuple(conversation for conversation, _ in pairs),
        questions=tuple(question for _, question in pairs),
    )


def _parse_record(value: Any, place: str) -> tuple[Conversation, Question]:
    raw = parse_as(_RawRecord, value, place)
    if len(raw.haystack_dates) != len(raw.haystack_sessions):
        raise DatasetFormatError(
            f"{place}: {len(raw.haystack_sessions)} haystack_sessions but {len(raw.haystack_dates)} haystack_dates: "
            "every session needs one date."
        )
    sessions = [_parse_session(raw, number, place) for number in range(len(raw.haystack_sessions))]
    ordered = tuple(sorted((session for session in sessions if session.turns), key=lambda session: session.time))
    conversation = Conversation(id=raw.question_id, speakers=("user", "assistant"), sessions=ordered)
    return conversation, _parse_question(raw, conversation, place)


def _parse_session(raw: _RawRecord, number: int, place: str) -> Session:
    time = parse_time(raw.haystack_dates[number], _DATE_FORMATS, "2023/05/20 (Sat) 02:21", f"{place} session {number}")
    turns = [
        Turn(id=_turn_id(number, index), speaker=turn.role, text=turn.content)
        for index, turn in enumerate(raw.haystack_sessions[number])
    ]
    return Session(id=f"session_{number + 1}", time=time, turns=tuple(turns))


def _parse_question(raw: _RawRecord, conversation: Conversation, place: str) -> Question:
    if raw.question_type not in CATEGORIES:
        raise DatasetFormatError(
            f"{place}: unknown question_type {raw.question_type!r}: use one of {list(CATEGORIES)}."
        )
    evidence = [
        _turn_id(number, index)
        for number, turns in enumerate(raw.haystack_sessions)
        for index, turn in enumerate(turns)
        if turn.has_answer
    ]
    return Question(
        id=f"{raw.question_id}-q",
        conversation_id=conversation.id,
        text=f"Today is {raw.question_date}. {raw.question.strip()}",
        answer=str(raw.answer).strip(),
        category=ABSTENTION if raw.question_id.endswith("_abs") else CATEGORIES[raw.question_type],
        evidence=order_evidence(conversation, evidence),
    )


def _turn_id(session: int, turn: int) -> str:
    return f"D{session + 1}:{turn + 1}"
