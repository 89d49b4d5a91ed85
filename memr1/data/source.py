"""A dataset file before anyone knows what it means: bytes → text → JSON → checked values, errors with their place."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from memr1.data.conversation import Conversation, Question, RejectedRow
from memr1.errors import DatasetFormatError
from memr1.records import AnyRecord, Record


@dataclass(frozen=True)
class SourceFile:
    """A file's text and the SHA-256 of its bytes."""

    path: Path
    text: str
    sha256: str


class Contents(Record):
    """What a dataset file held, before it is split: every loader returns one."""

    conversations: tuple[Conversation, ...]
    questions: tuple[Question, ...]
    left_out: tuple[RejectedRow, ...] = ()


def read_source(path: Path) -> SourceFile:
    """Read a UTF-8 text file (a byte order mark is fine). Raises DatasetFormatError: missing, empty, not UTF-8."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetFormatError(f"cannot read the dataset {path}: {error.strerror}. Check data.path.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetFormatError(
            f"{path} is not UTF-8: byte {content[error.start]:#04x} at offset {error.start}. Re-save it as UTF-8."
        ) from error
    if not text.strip():
        raise DatasetFormatError(f"{path} is empty: it must hold conversations and questions (see docs/data.md).")
    return SourceFile(path, text, hashlib.sha256(content).hexdigest())


def parse_json(text: str, place: str) -> Any:
    """Parse one JSON document; `place` names it in the DatasetFormatError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise DatasetFormatError(
            f"{place} is not valid JSON: {problem}. The file is cut off or damaged: fetch or export it again."
        ) from error
    except RecursionError as error:
        raise DatasetFormatError(f"{place} is nested too deep to be a dataset.") from error


def parse_as(kind: type[AnyRecord], value: Any, place: str) -> AnyRecord:
    """Check a JSON value against a record; DatasetFormatError names the field, what is wrong and the value."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the value"
        raise DatasetFormatError(
            f"{place}: {field}: {first['msg']} (got {str(first['input'])[:80]!r}). See docs/data.md for the format."
        ) from error


def parse_time(text: str | None, formats: Sequence[str], example: str, place: str) -> datetime:
    """A session's local time, without zone. No formats means ISO 8601. Raises DatasetFormatError."""
    if text is None or not text.strip():
        raise DatasetFormatError(f"{place} has no date: give one like {example!r}.")
    for pattern in formats or ("",):
        try:
            time = datetime.strptime(text.strip(), pattern) if pattern else datetime.fromisoformat(text.strip())
        except ValueError:
            continue
        return time.replace(tzinfo=None)
    raise DatasetFormatError(f"{place}: {text!r} is not a date: write it like {example!r}.")


def order_evidence(conversation: Conversation, turn_ids: Iterable[str]) -> tuple[str, ...]:
    """The ids without repeats, in spoken order; ids of no turn come last, for the gate to judge."""
    position = {turn.id: number for number, (_, turn) in enumerate(conversation.turns())}
    return tuple(sorted(dict.fromkeys(turn_ids), key=lambda turn_id: position.get(turn_id, len(position))))
