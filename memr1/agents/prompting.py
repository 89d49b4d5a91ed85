"""From what an agent must look at to the text its model reads. Two forms, each a pair of files in prompts/.

    compact   no instructions: for models trained on it (the shipped tiny one). One JSON line per memory.
    paper     the published Memory-R1 prompts' structure: for instruction-tuned models.

Memories are numbered 1, 2, 3 … in the order shown; real entry ids never reach a model (it would invent some).
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal

from memr1.bank.entry import MemoryEntry

PromptForm = Literal["compact", "paper"]


def render_manager_prompt(form: PromptForm, memories: Sequence[MemoryEntry], facts: Sequence[str]) -> str:
    """What the Memory Manager reads: the related memories, then the new facts (one per line)."""
    lines = [_memory_line(form, number, entry) for number, entry in enumerate(memories, 1)]
    return _fill(f"{form}_memory_manager", memories="\n".join(lines), facts="\n".join(facts))


def render_answer_prompt(form: PromptForm, memories: Sequence[MemoryEntry], question: str) -> str:
    """What the Answer Agent reads: the retrieved memories, speaker by speaker, then the question."""
    lines: list[str] = []
    speaker = ""
    for number, entry in enumerate(memories, 1):
        if form == "paper" and entry.speaker != speaker:
            speaker = entry.speaker
            lines.append(f"Memories for user {speaker}:")
        lines.append(_memory_line(form, number, entry))
    return _fill(f"{form}_answer_agent", memories="\n".join(lines), question=question)


def _memory_line(form: PromptForm, number: int, entry: MemoryEntry) -> str:
    if form == "compact":
        # The id stands after the text: a small model then copies it as "the next token".
        return json.dumps({"text": entry.text, "id": number}, ensure_ascii=False, separators=(",", ":"))
    return f"{number}. {entry.time:%d %B %Y}: {entry.text}"


def _fill(name: str, **parts: str) -> str:
    text = _template(name)
    for key, value in parts.items():
        text = text.replace("{" + key + "}", value)
    return text


@cache
def _template(name: str) -> str:
    return resources.files("memr1.agents").joinpath(f"prompts/{name}.txt").read_text(encoding="utf-8").rstrip("\n")
