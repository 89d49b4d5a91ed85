"""The user's own conversations: one JSON object per line (docs/data.md has the format, with examples).

A conversation holds `sessions` of speaker/text `turns`, or role/content `messages` as chat services export them: inside
a dated session, or in one list of dated messages that memr1 cuts into sessions at every pause of more than an hour.
A line may also be just such a list. A .json file may hold a list of the same objects.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from pydantic import Field

from memr1.data.conversation import Conversation, Question, RejectedRow, Session, Turn
from memr1.data.source import Contents, SourceFile, order_evidence, parse_as, parse_json, parse_time
from memr1.errors import DatasetFormatError
from memr1.records import Record

PAUSE_BETWEEN_SESSIONS = timedelta(hours=1)
_EXAMPLE_TIME = "2024-03-02T09:30"


class _RawTurn(Record):
    id: str | None = None
    speaker: str
    text: str
    image_caption: str | None = None


class _RawMessage(Record, extra="ignore"):  # exports carry model names, token counts and the like
    id: str | None = None
    role: str
    name: str | None = None
    content: str
    time: str | None = None


class _RawSession(Record):
    id: str | None = None
    time: str | None = None
    turns: tuple[_RawTurn, ...] = ()
    messages: tuple[_RawMessage, ...] = ()


class _RawQuestion(Record):
    id: str | None = None
    text: str
    answer: str | int | float
    category: int = 0
    evidence: tuple[str, ...] = ()


class _RawConversation(Record):
    id: str = Field(min_length=1)
    speakers: tuple[str, ...] = ()
    sessions: tuple[_RawSession, ...] = ()
    messages: tuple[_RawMessage, ...] = ()
    questions: tuple[_RawQuestion, ...] = ()


def parse_transcript(source: SourceFile) -> Contents:
    """Parse a transcript file. Raises DatasetFormatError with line and field."""
    parts = [_parse_conversation(value, place, name) for value, place, name in _documents(source)]
    return Contents(
        conversations=tuple(part.conversations[0] for part in parts),
        questions=tuple(question for part in parts for question in part.questions),
        left_out=tuple(row for part in parts for row in part.left_out),
    )


def _documents(source: SourceFile) -> Iterator[tuple[Any, str, str]]:
    """Every conversation of the file as (JSON value, place, name for a conversation without id)."""
    stem = source.path.stem
    if source.path.suffix == ".json":
        whole = parse_json(source.text, str(source.path))
        many = isinstance(whole, list) and not _is_message_list(whole)
        for number, value in enumerate(whole if many else [whole], 1):
            yield value, f"{source.path}[{number - 1}]" if many else str(source.path), f"{stem}-{number}"
        return
    for number, line in enumerate(source.text.split("\n"), 1):
        if line.strip():
            place = f"{source.path}:{number}"
            yield parse_json(line, place), place, f"{stem}-{number}"


def _is_message_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _parse_conversation(value: Any, place: str, name: str) -> Contents:
    raw = parse_as(_RawConversation, {"id": name, "messages": value} if isinstance(value, list) else value, place)
    place = f"{place}, conversation {raw.id!r}"
    if bool(raw.sessions) == bool(raw.messages):
        raise DatasetFormatError(f"{place} must have either sessions or messages, and at least one of them.")
    raw_sessions = raw.sessions or tuple(_cut_into_sessions(raw.messages, place))
    numbered = [_parse_session(session, number, place) for number, session in enumerate(raw_sessions, 1)]
    sessions = tuple(sorted((item for item in numbered if item.turns), key=lambda session: session.time))
    if not sessions:
        raise DatasetFormatError(f"{place} has no turn that anybody said.")
    said_by = tuple(dict.fromkeys(turn.speaker for session in sessions for turn in session.turns))
    conversation = Conversation(id=raw.id, speakers=raw.speakers or said_by, sessions=sessions)
    questions = (_parse_question(question, number, conversation) for number, question in enumerate(raw.questions, 1))
    return Contents(
        conversations=(conversation,), questions=tuple(questions), left_out=tuple(_system_rows(raw, raw_sessions))
    )


def _cut_into_sessions(messages: tuple[_RawMessage, ...], place: str) -> Iterator[_RawSession]:
    """A message without a time continues the one before; the first one needs a time."""
    first = _parse_iso(messages[0].time, f"{place}, message 1")
    current: list[_RawMessage] = []
    start = before = first
    for number, message in enumerate(messages, 1):
        time = _parse_iso(message.time, f"{place}, message {number}") if message.time else before
        if current and abs(time - before) > PAUSE_BETWEEN_SESSIONS:
            yield _RawSession(time=start.isoformat(), messages=tuple(current))
            current, start = [], time
        current.append(message)
        before = time
    yield _RawSession(time=start.isoformat(), messages=tuple(current))


def _parse_session(raw: _RawSession, number: int, place: str) -> Session:
    place = f"{place}, session {number}"
    if bool(raw.turns) == bool(raw.messages):
        raise DatasetFormatError(f"{place} must have either turns or messages, and at least one of them.")
    turns = raw.turns or tuple(_as_turn(message) for message in raw.messages if message.role != "system")
    return Session(
        id=raw.id or f"session_{number}",
        time=_parse_iso(raw.time, f"{place} (time)"),
        turns=tuple(
            Turn(
                id=turn.id or f"D{number}:{index}",
                speaker=turn.speaker.strip(),
                text=turn.text,
                image_caption=turn.image_caption,
            )
            for index, turn in enumerate(turns, 1)
        ),
    )


def _as_turn(message: _RawMessage) -> _RawTurn:
    return _RawTurn(id=message.id, speaker=message.name or message.role, text=message.content)


def _parse_question(raw: _RawQuestion, number: int, conversation: Conversation) -> Question:
    return Question(
        id=raw.id or f"{conversation.id}-q{number}",
        conversation_id=conversation.id,
        text=raw.text.strip(),
        answer=str(raw.answer).strip(),
        category=raw.category,
        evidence=order_evidence(conversation, raw.evidence),
    )


def _system_rows(raw: _RawConversation, sessions: Iterable[_RawSession]) -> Iterator[RejectedRow]:
    for number, session in enumerate(sessions, 1):
        for message in session.messages:
            if message.role == "system":
                reason = "a system prompt is said by nobody"
                text = json.dumps(message.content[:80], ensure_ascii=False)
                yield RejectedRow(kind="turn", id=f"{raw.id} session {number}", field="role", value=text, reason=reason)


def _parse_iso(text: str | None, place: str) -> datetime:
    return parse_time(text, (), _EXAMPLE_TIME, place)
