"""From what an agent must look at to the text its model reads. Two forms, each a pair of files in prompts/.

    compact   no instructions: for models trained on it (the shipped tiny one). One JSON line per memory.
    paper     the published Memory-R1 prompts' structure: for instruction-tuned models.

Both have a `_direct` form for the Answer Agent, which asks for the answer alone, without distillation.

Memories are numbered 1, 2, 3 … in the order shown; real entry ids never reach a model (it would invent some).
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Literal

from memr1.bank.entry import MemoryEntry

PromptForm = Literal["compact", "paper"]
AnswerPromptForm = Literal["compact", "paper", "compact_direct", "paper_direct"]
_PART = re.compile(r"\{(\w+)\}")


def render_manager_prompt(
    form: PromptForm, memories: Sequence[MemoryEntry], facts: Sequence[str], template: str | None = None
) -> str:
    """What the Memory Manager reads: the related memories, then the new facts (one per line)."""
    lines = [_memory_line(form, number, entry) for number, entry in enumerate(memories, 1)]
    text = template or read_template(f"{form}_memory_manager")
    return _fill(text, memories="\n".join(lines), facts="\n".join(facts))


def render_answer_prompt(
    form: AnswerPromptForm, memories: Sequence[MemoryEntry], question: str, template: str | None = None
) -> str:
    """What the Answer Agent reads: the retrieved memories, speaker by speaker, then the question."""
    lines: list[str] = []
    speaker = ""
    for number, entry in enumerate(memories, 1):
        if form.startswith("paper") and entry.speaker != speaker:
            speaker = entry.speaker
            lines.append(f"Memories for user {speaker}:")
        lines.append(_memory_line(form, number, entry))
    text = template or read_template(f"{form}_answer_agent")
    return _fill(text, memories="\n".join(lines), question=question)


def render_extraction_prompt(speaker: str, time: datetime, lines: Sequence[str]) -> str:
    """What a fact-extracting model reads: the last lines of a session, of which the last is to be read for facts."""
    text = read_template("fact_extraction")
    return _fill(text, speaker=speaker, date=f"{time:%d %B %Y}", earlier="\n".join(lines[:-1]), turn=lines[-1])


def render_judge_prompt(question: str, gold: str, prediction: str) -> str:
    """What a judge reads. The three texts are JSON strings: none of them can pass for a part of the prompt."""
    texts = {"question": question, "gold": gold, "prediction": prediction}
    return _fill(read_template("judge"), **{name: json.dumps(text, ensure_ascii=False) for name, text in texts.items()})


@cache
def read_template(name: str) -> str:
    """The text of a file of prompts/ ("compact_memory_manager", …), its {parts} not filled in."""
    return resources.files("memr1.agents").joinpath(f"prompts/{name}.txt").read_text(encoding="utf-8").rstrip("\n")


def _memory_line(form: AnswerPromptForm, number: int, entry: MemoryEntry) -> str:
    if form.startswith("compact"):
        # The id stands after the text: a small model then copies it as "the next token".
        return json.dumps({"text": entry.text, "id": number}, ensure_ascii=False, separators=(",", ":"))
    return f"{number}. {entry.time:%d %B %Y}: {entry.text}"


def _fill(template: str, **parts: str) -> str:
    # In one pass: a memory that happens to contain "{facts}" stays as it is.
    return _PART.sub(lambda found: parts.get(found[1], found[0]), template)
