"""The exact text of what the tiny agents complete, and the pieces of it that are single tokens.

    Memory Manager   {"operations":[{"about":…,"seen":…,"id":…,"text":…,"op":…}]}
    Answer Agent     {"about":…,"memories":[{"text":…,"id":…},…],"answer":…}
                     {"about":…,"answer":…}    without distillation

`about` ("Marta lives in ?"; of a question also "…, earlier ?", "…, since ?" or "who lives in Lisbon?") and `seen`
("Lisbon": what the bank says instead of the "?"; empty, and no id, where it says nothing) restate before anything is
decided. An id stands after the text it belongs to, so that it is copied like
any next token; the operation stands after its text, so that the two cannot come apart. What the world's sentences say
around their names and values is a single piece each: what is left to learn is to find, to copy and to decide.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from memr1.data.conversation import OperationKind
from memr1.data.synthetic_relations import Relation, list_templates
from memr1.data.synthetic_words import VALUES

NO_ANSWER = "none"
MAX_SHOWN = 40  # numbers that are single tokens

PROMPT_PIECES = (
    "memories:\n", "turn:\n", "\noperations:", "question:\n", "\nanswer:", "\nanswer at once:",
    '{"text":"', '","id":', '}\n{"text":"', "}\n", ": Since ", "Who ", " or ",
)  # fmt: skip
MANAGER_PIECES = (
    '{"operations":[]}',
    '{"operations":[{"about":"',
    '?","seen":"',
    '?","seen":"","text":"',
    ',"text":"',
    '","op":"ADD"}]}',
    '","op":"UPDATE"}]}',
    ',"op":"DELETE"}]}',
    ',"op":"NOOP"}]}',
)
ANSWER_PIECES = (
    '{"about":"',
    '{"about":"who',
    '?","memories":[{"text":"',
    '?","memories":[],"answer":"none"}',
    '},{"text":"',
    '}],"answer":"',
    '?","answer":"',
    '"}',
)
ENTRY_PIECES = (", since ", ", earlier ", "?, since ", "?, earlier ")
YEARS = (2014, 2024)  # the first and the last that a change is dated with
MIN_FRAME = 3  # characters: a lone full stop stays what it is


def single_pieces() -> list[str]:
    """Every text that the tokeniser keeps whole."""
    frames = {part for template in list_templates() for part in re.split(r"\{\w+\}", template)}
    long_frames = sorted(frame for frame in frames if len(frame) >= MIN_FRAME)
    numbers = [str(number) for number in range(1, MAX_SHOWN + 1)]
    return [*PROMPT_PIECES, *MANAGER_PIECES, *ANSWER_PIECES, *ENTRY_PIECES, *long_frames, *numbers, *list_dates(*YEARS)]


def list_dates(first_year: int, last_year: int) -> list[str]:
    """The months of these years, as changes are dated.

    Single pieces: in a bank full of dates, what has to follow "July 20" is anybody's guess to a small model. So all
    months are shown, those too that the world keeps for test conversations: a date that was never seen has no meaning.
    """
    years = range(first_year, last_year + 1)
    return [f"{month} {year}" for year in years for month in VALUES["month"].split()]


def ask_about(person: str, relation: Relation, part: Literal["", "earlier", "since"] = "") -> str:
    """What `about` restates: the entry's text with a question mark for what is asked."""
    return f"{person} {relation.phrase} ?{f', {part} ?' if part else ''}"


def ask_who(relation: Relation, value: str) -> str:
    """What `about` restates of a question that asks for the person."""
    return f"who {relation.phrase} {value}?"


def manager_completion(about: str, kind: OperationKind, text: str = "", *, seen: str = "", number: int = 0) -> str:
    """One operation. `number` is the shown number of the entry that says `seen`, 0 where there is none."""
    operation: dict[str, Any] = {"about": about, "seen": seen}
    if number:
        operation["id"] = number
    if text:
        operation["text"] = text
    operation["op"] = kind
    return _compact({"operations": [operation]})


def small_talk_completion() -> str:
    """Nothing to remember."""
    return _compact({"operations": []})


def answer_completion(about: str, memories: Sequence[tuple[str, int]], answer: str) -> str:
    """What was found in memories: (text, shown number), in the order in which they were looked up."""
    named = [{"text": text, "id": number} for text, number in memories]
    return _compact({"about": about, "memories": named, "answer": answer})


def nothing_found_completion(about: str) -> str:
    """No memory is about this."""
    return _compact({"about": about, "memories": [], "answer": NO_ANSWER})


def direct_completion(about: str, answer: str) -> str:
    """An answer without distillation: no memory is named."""
    return _compact({"about": about, "answer": answer})


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
