"""From what a model printed to what it meant. Pure, and never raises on text: what cannot be read is a ParseFailure.

Memory Manager, compact form and published form (Memory-R1, arXiv 2508.19828, figures 9 and 10):

    {"operations":[{"about":"Marta lives in ?","seen":"Lisbon","id":1,"text":"Marta lives in Rome","op":"UPDATE"}]}
    {"memory":[{"id":"1","text":"Marta lives in Rome","event":"UPDATE"},{"id":"2","text":"…","event":"NONE"}]}

Answer Agent, compact form and published form (figure 11):

    {"about":"Marta lives in ?","memories":[{"text":"Marta lives in Rome","id":3}],"answer":"Rome"}
    the selected memories, then "**Answer:** Rome"

Ids are the 1-based numbers under which entries were shown, as a number or as text. `about`, `seen` and `old_memory`
are the model's own working and are ignored. Reasoning in <think> tags, code fences and prose around the JSON are
skipped. Left out: repair of broken JSON. A repaired output may be an operation that the model did not mean.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import Operation
from memr1.data.conversation import OperationKind
from memr1.records import Record

KINDS: dict[str, OperationKind] = {
    "ADD": "ADD",
    "UPDATE": "UPDATE",
    "DELETE": "DELETE",
    "NOOP": "NOOP",
    "NONE": "NOOP",  # the published form's word
}
NOTHING = (Operation(kind="NOOP"),)

_JSON = json.JSONDecoder(strict=False)  # a line break inside a string is no reason to lose a memory
_TAGGED_ANSWER = re.compile(r"(?is)<answer>(.*?)</answer>")
_MARKED_ANSWER = re.compile(r"(?im)(?:^[ \t>*#_-]*|\*\*)(?:final )?answer[ \t*_]*:[\s*_]*(\S.*)$")


class ParseFailure(Record):
    """An output that says nothing that can be acted on: the whole text, and why."""

    text: str
    reason: str


class Answer(Record):
    """What an Answer Agent said. `memory_ids` are the entries it distilled its answer from, in its own order.

    With `failure` (the offending text) nothing could be read, and `text` is empty.
    """

    text: str
    memory_ids: tuple[str, ...] = ()
    completion: str = ""
    failure: str | None = None


class _Unreadable(Exception):
    """Carries the reason to the two public functions; never leaves this module."""


def parse_operations(text: str, shown: Sequence[MemoryEntry]) -> tuple[Operation, ...] | ParseFailure:
    """The operations a Memory Manager asks for on the entries it was shown; never an empty tuple.

    An empty list, or one of NOOPs alone, is one NOOP; beside a change NOOPs are dropped. One operation that cannot
    be read makes the whole output a failure: half an answer may delete what the other half was to keep.
    """
    try:
        return _read_operations(_read_object(text, ("operations", "memory")), shown)
    except _Unreadable as problem:
        return _failure(text, problem)


def parse_answer(text: str, shown: Sequence[MemoryEntry]) -> Answer | ParseFailure:
    """An Answer Agent's answer and the shown entries it names. Naming an entry that was not shown is no failure.

    The last marked answer counts. Without a mark there is no answer: the whole text is *not* taken for one.
    """
    try:
        answer, memory_ids = _read_answer(without_reasoning(text), shown)
    except _Unreadable as problem:
        return _failure(text, problem)
    return Answer(text=answer, memory_ids=memory_ids, completion=_encodable(text))


def _read_operations(tree: Mapping[str, Any], shown: Sequence[MemoryEntry]) -> tuple[Operation, ...]:
    items = tree["operations"] if "operations" in tree else tree["memory"]
    if not isinstance(items, list):
        raise _Unreadable("the operations are not a list")
    operations: list[Operation] = []
    removed: set[str] = set()
    for item in items:
        operation = _read_operation(item, shown)
        if operation.entry_id in removed:
            raise _Unreadable(f"{operation.kind} of an entry that was deleted just before")
        if operation.kind == "DELETE":
            removed.add(operation.entry_id)
        if operation.kind != "NOOP":
            operations.append(operation)
    return tuple(operations) or NOTHING


def _read_operation(item: Any, shown: Sequence[MemoryEntry]) -> Operation:
    if not isinstance(item, dict):
        raise _Unreadable("an operation is not an object")
    word = item.get("op", item.get("event"))
    kind = KINDS.get(word.strip().upper()) if isinstance(word, str) else None
    if kind is None:
        raise _Unreadable(f"no operation is called {str(word)[:40]!r}")
    if kind == "NOOP":
        return Operation(kind=kind)
    entry_id = "" if kind == "ADD" else _shown_id(item.get("id"), shown)
    if kind == "DELETE":
        return Operation(kind=kind, entry_id=entry_id)
    words = _readable(_scalar(item.get("text")))
    if not words:
        raise _Unreadable(f"{kind} without text")
    return Operation(kind=kind, text=words, entry_id=entry_id)


def _read_answer(said: str, shown: Sequence[MemoryEntry]) -> tuple[str, tuple[str, ...]]:
    """The answer and the ids of the entries it names."""
    marked = _TAGGED_ANSWER.findall(said) or _MARKED_ANSWER.findall(said)
    last = marked[-1].strip("*_ \t\r\n") if marked else ""
    if last and not said.lstrip().startswith("{"):
        return _readable(last), _quoted_ids(said, shown)
    if "{" not in said:
        raise _Unreadable("no JSON object and no marked answer")
    tree = _read_object(said, ("answer",))
    return _readable(_scalar(tree["answer"])), _distilled_ids(tree.get("memories"), shown)


def _read_object(text: str, keys: Sequence[str]) -> dict[str, Any]:
    """The first JSON object of the text; it must hold one of the keys."""
    said = without_reasoning(text)
    start = said.find("{")
    if start < 0:
        raise _Unreadable("no JSON object")
    try:
        tree, _ = _JSON.raw_decode(said, start)
    except (ValueError, RecursionError) as error:  # ValueError also stands for a number of absurd length
        raise _Unreadable(f"broken JSON: {error}") from error
    if not any(key in tree for key in keys):
        raise _Unreadable(f"the JSON object has no {' or '.join(map(repr, keys))}")
    return dict(tree)


def without_reasoning(text: str) -> str:
    """What follows a model's <think> block; a tag inside the answer's own JSON is text like any other."""
    if text.lstrip().startswith("{"):
        return text
    return text.rpartition("</think>")[2]


def _scalar(value: Any) -> str:
    """A JSON scalar as text: models answer `3` where `"3"` is meant."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unreadable(f"expected a text, got {type(value).__name__}")
    try:
        return str(value)
    except ValueError as error:
        raise _Unreadable("a number of absurd length") from error


def _readable(text: str) -> str:
    """One line of valid Unicode: an entry is one line of a prompt."""
    if text != _encodable(text):
        raise _Unreadable("half a surrogate pair")
    return " ".join(text.split())


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _number(value: Any) -> int:
    """A shown number, written as 3 or "3"; 0, which is never shown, for anything else."""
    if isinstance(value, bool):
        return 0
    digits = str(value) if isinstance(value, int) and abs(value) < 10**9 else value
    if isinstance(digits, str) and digits.strip().isascii() and digits.strip().isdecimal() and len(digits) < 10:
        return int(digits)
    return 0


def _shown_id(value: Any, shown: Sequence[MemoryEntry]) -> str:
    number = _number(value)
    if not 1 <= number <= len(shown):
        raise _Unreadable(f"no memory was shown as number {str(value)[:20] if not isinstance(value, int) else number}")
    return shown[number - 1].id


def _distilled_ids(memories: Any, shown: Sequence[MemoryEntry]) -> tuple[str, ...]:
    numbers = [_number(item.get("id")) if isinstance(item, dict) else 0 for item in _items(memories)]
    return tuple(dict.fromkeys(shown[number - 1].id for number in numbers if 1 <= number <= len(shown)))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _quoted_ids(said: str, shown: Sequence[MemoryEntry]) -> tuple[str, ...]:
    """The entries whose text is repeated. Numbers in prose are not trusted: models number their lists anew."""
    lines = " ".join(said.split()).casefold()
    return tuple(entry.id for entry in shown if " ".join(entry.text.split()).casefold() in lines)


def _failure(text: str, problem: _Unreadable) -> ParseFailure:
    return ParseFailure(text=_encodable(text), reason=_encodable(str(problem)))
