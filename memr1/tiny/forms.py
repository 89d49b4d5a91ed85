"""The exact text of what the tiny agents complete, and the pieces of it that are single tokens.

    Memory Manager   {"operations":[{"about":…,"seen":…,"op":…,"text":…,"id":…}]}   `seen`: what the bank says now
    Answer Agent     {"about":…,"memories":[{"text":…,"id":…}],"answer":…}

`about` and `seen` restate before anything is decided. The id stands after the text it belongs to, so that it is copied
like any next token.
"""

import json
from typing import Any

from memr1.data.conversation import OperationKind
from memr1.data.synthetic_relations import RELATIONS

FORMER = ", earlier"
NO_ANSWER = "none"
MAX_SHOWN = 40  # numbers that are single tokens

PROMPT_PIECES = ("memories:\n", "turn:\n", "\noperations:", "question:\n", "\nanswer:", '{"text":"', '","id":', "}\n")
MANAGER_PIECES = (
    '{"operations":[]}',
    '{"operations":[{"about":"',
    '","seen":"',
    '","op":"ADD","text":"',
    '","op":"UPDATE","text":"',
    '","op":"DELETE","id":',
    '","op":"NOOP"}]}',
    '"}]}',
    "}]}",
)
ANSWER_PIECES = ('{"about":"', '","memories":[{"text":"', '","memories":[],"answer":"none"}', '}],"answer":"', '"}')


def single_pieces() -> list[str]:
    """Every text that the tokeniser keeps whole."""
    phrases = [f" {relation.phrase}" for relation in RELATIONS]
    numbers = [str(number) for number in range(1, MAX_SHOWN + 1)]
    return [*PROMPT_PIECES, *MANAGER_PIECES, *ANSWER_PIECES, FORMER, *phrases, *numbers]


def manager_completion(about: str, seen: str, kind: OperationKind, text: str = "", number: int = 0) -> str:
    """One operation. `number` is the shown number of the entry, 0 where there is none."""
    operation: dict[str, Any] = {"about": about, "seen": seen, "op": kind}
    if text:
        operation["text"] = text
    if number:
        operation["id"] = number
    return _compact({"operations": [operation]})


def small_talk_completion() -> str:
    """Nothing to remember."""
    return _compact({"operations": []})


def answer_completion(about: str, memory: str, number: int, answer: str) -> str:
    """What was found in one memory."""
    return _compact({"about": about, "memories": [{"text": memory, "id": number}], "answer": answer})


def nothing_found_completion(about: str) -> str:
    """No memory is about this."""
    return _compact({"about": about, "memories": [], "answer": NO_ANSWER})


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
