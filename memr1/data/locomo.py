"""LoCoMo's locomo10.json (snap-research/LoCoMo), and files of the same form.

Taken over: turns with image captions, questions of categories 1 to 4, the observations as facts. Left out: event and
session summaries (memr1 makes its own memory), and adversarial questions (category 5 has no gold answer).

The published file is not clean. Repaired without loss: answers that are numbers; evidence written "D8:6; D9:17",
"D9:1 D4:4", "D:11:26" or "D30:05"; evidence out of order or repeated; observations that cite several turns. Repeated
questions are kept, since the published scores count them. What cannot be repaired (dates of sessions that are not
there, evidence that names no turn) is kept in `left_out`.
"""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from memr1.data.conversation import Conversation, Fact, Question, RejectedRow, Session, Splits, Turn
from memr1.data.source import Contents, SourceFile, order_evidence, parse_as, parse_json, parse_time
from memr1.errors import DatasetFormatError
from memr1.records import Record

LICENCE_NOTICE = (
    "LoCoMo (Maharana et al. 2024, snap-research/LoCoMo) is licensed CC BY-NC 4.0: attribution, non-commercial use "
    "only. What is trained or measured on it carries this notice."
)
PUBLISHED_IDS = tuple(f"conv-{number}" for number in (26, 30, 41, 42, 43, 44, 47, 48, 49, 50))
# The published file cites a missing turn in 3 of 1,540 questions; more than this share is another kind of damage.
MAX_DANGLING_SHARE = 0.01

_ADVERSARIAL = 5
_DATE_FORMATS = ("%I:%M %p on %d %B, %Y",)
_SESSION_KEY = re.compile(r"session_(\d+)(_date_time)?")
_TURN_ID = re.compile(r"D:?0*(\d+):0*(\d+)")


class _RawTurn(Record, extra="ignore"):
    dia_id: str = Field(min_length=1)
    speaker: str
    text: str
    blip_caption: str | None = None


class _RawQuestion(Record, extra="ignore"):
    question: str
    answer: str | int | float | None = None
    category: int = Field(ge=1, le=5)
    evidence: tuple[str, ...] = ()


class _RawSample(Record, extra="ignore"):
    sample_id: str = Field(min_length=1)
    conversation: dict[str, Any]
    qa: tuple[_RawQuestion, ...]
    observation: dict[str, dict[str, tuple[tuple[str, str | list[str]], ...]]] = Field(default_factory=dict)


def parse_locomo(source: SourceFile) -> Contents:
    """Parse a whole file of LoCoMo's form. Raises DatasetFormatError with sample, session and field."""
    samples = parse_json(source.text, str(source.path))
    if not isinstance(samples, list) or not samples:
        raise DatasetFormatError(f"{source.path} must be a list of conversations, as locomo10.json is.")
    parts = [_parse_sample(sample, f"{source.path}[{number}]") for number, sample in enumerate(samples)]
    contents = Contents(
        conversations=tuple(part.conversations[0] for part in parts),
        questions=tuple(question for part in parts for question in part.questions),
        left_out=tuple(row for part in parts for row in part.left_out),
    )
    return _drop_dangling_evidence(contents)


def is_published(contents: Contents) -> bool:
    """Whether any conversation is one of LoCoMo's own ten, so that its licence applies."""
    return any(conversation.id in PUBLISHED_IDS for conversation in contents.conversations)


def paper_splits(contents: Contents) -> Splits | None:
    """Memory-R1's split: conv-26 trains, conv-30 validates, the others test. None for other conversations."""
    ids = [conversation.id for conversation in contents.conversations]
    rest = tuple(name for name in ids if name not in PUBLISHED_IDS[:2])
    if not rest or len(rest) != len(ids) - 2 or not set(rest) <= set(PUBLISHED_IDS):
        return None
    return Splits(train=PUBLISHED_IDS[:1], validation=PUBLISHED_IDS[1:2], test=rest)


def _parse_sample(value: Any, place: str) -> Contents:
    sample = parse_as(_RawSample, value, place)
    sessions, left_out = _parse_sessions(sample)
    speakers = tuple(sample.conversation.get(key) for key in ("speaker_a", "speaker_b"))
    bare = parse_as(Conversation, {"id": sample.sample_id, "speakers": speakers, "sessions": sessions}, place)
    facts, rejected_facts = _parse_facts(sample, bare)
    conversation = bare.model_copy(update={"facts": facts})
    questions = [_parse_question(raw, number, conversation) for number, raw in enumerate(sample.qa)]
    return Contents(
        conversations=(conversation,),
        questions=tuple(question for question in questions if question.category != _ADVERSARIAL),
        left_out=(*left_out, *rejected_facts, *_adversarial_rows(questions)),
    )


def _parse_sessions(sample: _RawSample) -> tuple[tuple[Session, ...], list[RejectedRow]]:
    matches = [match for key in sample.conversation if (match := _SESSION_KEY.fullmatch(key))]
    numbers = {int(match[1]) for match in matches if not match[2]}
    dated = {int(match[1]) for match in matches if match[2]}
    left_out = [
        RejectedRow(
            kind="session",
            id=f"{sample.sample_id} session_{number}",
            field="turns",
            value="",
            reason="the file has a date for this session but no turns",
        )
        for number in sorted(dated | numbers)
        if not sample.conversation.get(f"session_{number}")
    ]
    kept = [number for number in sorted(numbers) if sample.conversation[f"session_{number}"]]
    return tuple(_parse_session(sample, number) for number in kept), left_out


def _parse_session(sample: _RawSample, number: int) -> Session:
    name = f"session_{number}"
    place = f"{sample.sample_id} {name}"
    date = sample.conversation.get(f"{name}_date_time")
    if date is not None and not isinstance(date, str):
        raise DatasetFormatError(f"{place}: {name}_date_time must be text (got {str(date)[:80]!r}).")
    rows = sample.conversation[name]
    if not isinstance(rows, list):
        raise DatasetFormatError(f"{place} must be a list of turns (got {str(rows)[:80]!r}).")
    time = parse_time(date, _DATE_FORMATS, "1:56 pm on 8 May, 2023", f"{place} ({name}_date_time)")
    raw_turns = [parse_as(_RawTurn, row, f"{place}, turn {index}") for index, row in enumerate(rows, 1)]
    turns = [
        Turn(id=raw.dia_id, speaker=raw.speaker, text=raw.text, image_caption=raw.blip_caption) for raw in raw_turns
    ]
    return Session(id=name, time=time, turns=tuple(turns))


def _parse_facts(sample: _RawSample, conversation: Conversation) -> tuple[tuple[Fact, ...], list[RejectedRow]]:
    """The observations in spoken order; one that cites several turns belongs to the last, which completes it."""
    position = {turn.id: number for number, (_, turn) in enumerate(conversation.turns())}
    facts: list[Fact] = []
    rejected: list[RejectedRow] = []
    for speaker, text, cited in _observations(sample):
        turn_ids = [turn_id for turn_id in _split_turn_ids(cited) if turn_id in position]
        if turn_ids and speaker in conversation.speakers:
            facts.append(Fact(speaker=speaker, text=text, turn_id=max(turn_ids, key=position.__getitem__)))
        else:
            reason = (
                "it cites no turn of the conversation" if not turn_ids else f"{speaker!r} is not one of the speakers"
            )
            rejected.append(
                RejectedRow(
                    kind="fact", id=conversation.id, field="observation", value=f"{text} {cited}", reason=reason
                )
            )
    return tuple(sorted(facts, key=lambda fact: position[fact.turn_id])), rejected


def _observations(sample: _RawSample) -> Iterator[tuple[str, str, list[str]]]:
    for by_speaker in sample.observation.values():
        for speaker, rows in by_speaker.items():
            for text, cited in rows:
                yield speaker, text, [cited] if isinstance(cited, str) else cited


def _parse_question(raw: _RawQuestion, number: int, conversation: Conversation) -> Question:
    answer = "" if raw.category == _ADVERSARIAL or raw.answer is None else str(raw.answer)
    return Question(
        id=f"{conversation.id}-qa{number}",  # the number that published corrections of LoCoMo use
        conversation_id=conversation.id,
        text=raw.question.strip(),
        answer=answer.strip(),
        category=raw.category,
        evidence=order_evidence(conversation, _split_turn_ids(raw.evidence)),
    )


def _split_turn_ids(texts: tuple[str, ...] | list[str]) -> list[str]:
    pieces = [piece for text in texts for piece in re.split(r"[;,\s]+", text) if piece]
    return [f"D{match[1]}:{match[2]}" if (match := _TURN_ID.fullmatch(piece)) else piece for piece in pieces]


def _adversarial_rows(questions: list[Question]) -> list[RejectedRow]:
    reason = "adversarial questions (category 5) have no gold answer and are not scored"
    return [
        RejectedRow(kind="question", id=question.id, field="category", value=str(_ADVERSARIAL), reason=reason)
        for question in questions
        if question.category == _ADVERSARIAL
    ]


def _drop_dangling_evidence(contents: Contents) -> Contents:
    """Drop evidence that names no turn when it is as rare as in the published file; else leave it to the gate."""
    known = {item.id: {turn.id for _, turn in item.turns()} for item in contents.conversations}
    cleaned: list[Question] = []
    rows: list[RejectedRow] = []
    for question in contents.questions:
        kept = tuple(turn_id for turn_id in question.evidence if turn_id in known[question.conversation_id])
        cleaned.append(question if kept == question.evidence else question.model_copy(update={"evidence": kept}))
        rows += [_dangling_row(question, turn_id) for turn_id in question.evidence if turn_id not in kept]
    if len({row.id for row in rows}) > MAX_DANGLING_SHARE * len(cleaned):
        return contents
    return contents.model_copy(update={"questions": tuple(cleaned), "left_out": (*contents.left_out, *rows)})


def _dangling_row(question: Question, turn_id: str) -> RejectedRow:
    reason = "no turn has this id; the question is kept, without it"
    return RejectedRow(kind="evidence", id=question.id, field="evidence", value=turn_id, reason=reason)
