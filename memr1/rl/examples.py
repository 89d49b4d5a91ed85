"""Training examples: what an agent was shown, and the questions whose answers will tell whether it did well.

Memory Manager: one turn read from the bank that the Manager, as it was before, had built by then (arXiv 2508.19828,
Algorithm 1).
Answer Agent: one question over the bank that the *trained* Manager builds (Algorithm 2).

Left out: operation labels. Neither agent ever sees what a faultless Manager would have done.
"""

import random
from collections.abc import Iterable, Sequence

from memr1.bank.bank import fold_journal
from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import JournalRecord, Source
from memr1.data.conversation import Conversation, Question
from memr1.records import Record

UNLINKED_SHARE = 0.25  # turns that no question rests on, per turn that one does: they teach to leave the bank alone


class LinkedQuestion(Record):
    """A question that scores a Manager's turn."""

    id: str
    text: str
    answer: str
    evidence: tuple[str, ...]


class ManagerExample(Record):
    """One turn to decide on. The bank before it is the fold of the journal up to `bank_sequence`."""

    id: str
    prompt: str
    scope: str
    source: Source
    bank_sequence: int
    turn_words: int
    words_read: int  # of the whole conversation so far, this turn's included
    shown: tuple[str, ...]  # entry ids, in the order the prompt numbers them
    questions: tuple[LinkedQuestion, ...]  # answerable from this turn on
    retention: tuple[LinkedQuestion, ...]  # about entries shown: what a careless operation would destroy


class AnswerExample(Record):
    """One question over a finished bank."""

    id: str
    prompt: str
    question: str
    answer: str
    category: int
    memories: tuple[str, ...]  # entry ids, in the order the prompt numbers them


def link_questions(questions: Iterable[Question]) -> dict[str, list[LinkedQuestion]]:
    """Turn id → the questions that can be answered from that turn on: those whose *last* evidence it is.

    The paper links a question to every evidence turn; before the last one its answer cannot be known, and the
    reward would punish the Manager for that.
    """
    linked: dict[str, list[LinkedQuestion]] = {}
    for question in questions:
        if question.evidence:
            item = LinkedQuestion(
                id=question.id, text=question.text, answer=question.answer, evidence=question.evidence
            )
            linked.setdefault(question.evidence[-1], []).append(item)
    return linked


def banks_before_turns(journal: Sequence[JournalRecord]) -> dict[str, int]:
    """Turn id → sequence number of the last journal record before that turn was read (0: an empty bank)."""
    before: dict[str, int] = {}
    for record in journal:
        before.setdefault(record.source.turn_id, record.sequence - 1)
    return before


def bank_at(journal: Sequence[JournalRecord], scope: str, sequence: int) -> list[MemoryEntry]:
    """The entries of a scope as they stood after `sequence`."""
    return fold_journal([record for record in journal if record.sequence <= sequence], scope)


def retention_questions(
    linked: dict[str, list[LinkedQuestion]], earlier_turns: set[str], shown: Sequence[MemoryEntry]
) -> tuple[LinkedQuestion, ...]:
    """Questions already answerable before the turn whose evidence lies in an entry that is shown."""
    at_risk = {turn_id for entry in shown for turn_id in entry.turn_ids}
    return tuple(
        question
        for turn_id, questions in linked.items()
        if turn_id in earlier_turns
        for question in questions
        if at_risk.intersection(question.evidence)
    )


def choose_manager_examples(examples: Sequence[ManagerExample], limit: int, seed: int) -> list[ManagerExample]:
    """All turns with questions and a quarter as many without, shuffled, at most `limit`."""
    rng = random.Random(seed)
    linked = [example for example in examples if example.questions]
    unlinked = [example for example in examples if not example.questions and example.retention]
    chosen = linked + rng.sample(unlinked, min(len(unlinked), round(len(linked) * UNLINKED_SHARE)))
    rng.shuffle(chosen)
    return chosen[:limit]


def choose_answer_examples(examples: Sequence[AnswerExample], limit: int, seed: int) -> list[AnswerExample]:
    """The examples in a seeded order, at most `limit`."""
    return random.Random(seed).sample(list(examples), min(len(examples), limit))


def turns_before(conversation: Conversation, turn_id: str) -> set[str]:
    """Ids of the turns spoken before `turn_id`."""
    ids = [turn.id for _, turn in conversation.turns()]
    return set(ids[: ids.index(turn_id)])
