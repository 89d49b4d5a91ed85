"""What a page about one bank shows: turns, operations, each entry's states, questions with their answers. Pure.

A page is static, so everything that it may be asked for is in here; `memr1.bank.view_html` makes the document.
"""

from collections.abc import Sequence
from datetime import datetime

from memr1.bank.bank import fold_journal
from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import JournalRecord, Source
from memr1.data.conversation import Conversation, OperationKind
from memr1.records import Record


class ViewedTurn(Record):
    """A turn on the page. `text` is None where only the journal is known: it keeps ids, speakers and times."""

    id: str
    session: str
    time: datetime
    speaker: str
    text: str | None = None
    image_caption: str | None = None


class ViewedOperation(Record):
    """A journal record without the entries: those are in the states. Its sequence number is its place, from 1."""

    kind: OperationKind
    entry_id: str  # of the entry that it adds, changes or removes; empty for NOOP
    num_following: int  # operations of the same turn behind this one
    source: Source


class EntryState(Record):
    """What an entry is from a sequence number on; None once it is deleted."""

    sequence: int
    entry: MemoryEntry | None


class UsedMemory(Record):
    """A memory that an answer rests on, and the entries of the finished bank that have its words, if any."""

    text: str
    entry_ids: tuple[str, ...]


class ViewedAnswer(Record):
    """What a pair answered. `failure` is an output that could not be read as an answer."""

    text: str
    is_right: bool
    f1: float
    memories: tuple[UsedMemory, ...]
    num_retrieved: int
    failure: str | None = None


class ViewedQuestion(Record):
    """A question about the conversation; `answer` is None when nobody was asked."""

    id: str
    category: str
    text: str
    gold: str
    evidence: tuple[str, ...] = ()
    answer: ViewedAnswer | None = None


class BankView(Record):
    """One page. `states` has every entry that ever was, by id, in the order in which a bank lists them."""

    scope: str
    place: str  # the journal it was read from
    system: str  # whose answers these are; empty without answers
    knows_words: bool
    turns: tuple[ViewedTurn, ...]
    operations: tuple[ViewedOperation, ...]
    states: dict[str, tuple[EntryState, ...]]
    questions: tuple[ViewedQuestion, ...]


def build_view(
    records: Sequence[JournalRecord],
    *,
    place: str,
    system: str = "",
    conversation: Conversation | None = None,
    questions: Sequence[ViewedQuestion] = (),
) -> BankView:
    """The page of one scope's records. Raises BankError for records that contradict each other."""
    scope = records[0].scope
    fold_journal(records, scope)
    return BankView(
        scope=scope,
        place=place,
        system=system,
        knows_words=conversation is not None,
        turns=tuple(_list_turns(records, conversation)),
        operations=tuple(_view_operation(record) for record in records),
        states=_entry_states(records),
        questions=tuple(questions),
    )


def find_memory(text: str, entries: Sequence[MemoryEntry]) -> UsedMemory:
    """An evaluation keeps the words of the memories that were used, not their ids."""
    return UsedMemory(text=text, entry_ids=tuple(entry.id for entry in entries if entry.text == text))


def _list_turns(records: Sequence[JournalRecord], conversation: Conversation | None) -> list[ViewedTurn]:
    """The conversation's turns, and behind them those that only the journal names."""
    turns: dict[str, ViewedTurn] = {}
    for session, turn in conversation.turns() if conversation is not None else ():
        turns[turn.id] = ViewedTurn(session=session.id, time=session.time, **turn.model_dump())
    for record in records:
        source = record.source
        if source.turn_id not in turns:
            turns[source.turn_id] = ViewedTurn(id=source.turn_id, session="", time=source.time, speaker=source.speaker)
    return list(turns.values())


def _view_operation(record: JournalRecord) -> ViewedOperation:
    changed = record.after or record.before
    return ViewedOperation(
        kind=record.operation.kind,
        entry_id=changed.id if changed else "",
        num_following=record.num_following,
        source=record.source,
    )


def _entry_states(records: Sequence[JournalRecord]) -> dict[str, tuple[EntryState, ...]]:
    states: dict[str, list[EntryState]] = {}
    for record in records:
        changed = record.after or record.before
        if changed is not None:
            states.setdefault(changed.id, []).append(EntryState(sequence=record.sequence, entry=record.after))
    return {key: tuple(states[key]) for key in sorted(states, key=int)}
