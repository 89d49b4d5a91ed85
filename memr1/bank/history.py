"""What a bank's journal tells: an entry's past, the bank at an earlier point, what differs between two, the way back.

Everything here is pure. A point is a sequence number, or a time: the bank as it stood after the last record that was
heard at that time or before (a record's time is its turn's: when it was said, not when it was read).
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from memr1.bank.bank import fold_journal
from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import JournalRecord, Operation
from memr1.data.conversation import OperationKind
from memr1.errors import BankError, UnknownEntry
from memr1.records import Record

Point = int | datetime
RESTORE_POLICY = "restore"


class ChangedEntry(Record):
    """An entry that two banks have in different words."""

    before: MemoryEntry
    after: MemoryEntry


class BankDifference(Record):
    """What must happen to the first of two banks to make it the second."""

    removed: tuple[MemoryEntry, ...]
    added: tuple[MemoryEntry, ...]
    changed: tuple[ChangedEntry, ...]
    num_equal: int


class BankStatistics(Record):
    """Counts of one scope. `operations` are the policies' decisions: failures are not among the NOOPs."""

    scope: str
    num_records: int
    num_turns: int
    num_entries: int
    entries_by_speaker: dict[str, int]
    operations: dict[OperationKind, int]
    records_by_policy: dict[str, int]
    num_failures: int


def entry_history(records: Sequence[JournalRecord], entry_id: str) -> list[JournalRecord]:
    """Every record of one scope that touched the entry, oldest first. Raises UnknownEntry when none did."""
    touched = [
        record for record in records if entry_id in {entry.id for entry in (record.before, record.after) if entry}
    ]
    if not touched:
        scope = records[0].scope if records else "?"
        raise UnknownEntry(
            f"no record of scope {scope!r} touches an entry {entry_id!r}: `memr1 bank show` lists the ids"
        )
    return touched


def records_until(records: Sequence[JournalRecord], point: Point) -> list[JournalRecord]:
    """The records of one scope up to a point. Raises BankError for a sequence number that it does not have."""
    if isinstance(point, datetime):
        later = (place for place, record in enumerate(records) if _is_later(record.source.time, point))
        return list(records[: next(later, len(records))])
    if not 0 <= point <= len(records):
        raise BankError(
            f"the journal has {len(records)} records of this scope: choose a point from 0 to {len(records)}"
        )
    return list(records[:point])


def entries_at(records: Sequence[JournalRecord], point: Point) -> list[MemoryEntry]:
    """The entries of one scope as they stood at a point."""
    return fold_journal(records_until(records, point), records[0].scope) if records else []


def compare_points(before: Sequence[MemoryEntry], after: Sequence[MemoryEntry]) -> BankDifference:
    """Two states of one bank: entries with the same id are the same entry."""
    old, new = {entry.id: entry for entry in before}, {entry.id: entry for entry in after}
    changed = [ChangedEntry(before=old[key], after=new[key]) for key in old if key in new and old[key] != new[key]]
    return BankDifference(
        removed=tuple(entry for key, entry in old.items() if key not in new),
        added=tuple(entry for key, entry in new.items() if key not in old),
        changed=tuple(changed),
        num_equal=sum(new.get(key) == entry for key, entry in old.items()),
    )


def compare_banks(before: Sequence[MemoryEntry], after: Sequence[MemoryEntry]) -> BankDifference:
    """Two banks that grew apart, whose ids tell nothing: the same entry says the same of the same speaker.

    Among the others, entries of a speaker that rest on a common turn are one entry in other words.
    """
    unmatched = list(after)
    removed: list[MemoryEntry] = []
    for entry in before:
        twin = next((other for other in unmatched if (other.speaker, other.text) == (entry.speaker, entry.text)), None)
        removed.append(entry) if twin is None else unmatched.remove(twin)
    num_equal = len(after) - len(unmatched)
    changed: list[ChangedEntry] = []
    for entry in list(removed):
        other = next((other for other in unmatched if _share_turn(entry, other)), None)
        if other is not None:
            changed.append(ChangedEntry(before=entry, after=other))
            removed.remove(entry)
            unmatched.remove(other)
    return BankDifference(removed=tuple(removed), added=tuple(unmatched), changed=tuple(changed), num_equal=num_equal)


def restoring_records(records: Sequence[JournalRecord], point: Point) -> list[JournalRecord]:
    """What to append to the journal of one scope so that its entries are again those of the point, ids and all.

    Their source is the last turn before the point, so that a build which goes on reads what came after it. None when
    there is nothing to change. Raises BankError for a point before the first record.
    """
    kept = records_until(records, point)
    if not kept:
        raise BankError("there is no turn before this point: begin a new bank instead of restoring an empty one")
    scope = records[0].scope
    difference = compare_points(fold_journal(records, scope), fold_journal(kept, scope))
    last = kept[-1]
    source = last.source.model_copy(update={"policy": f"{RESTORE_POLICY} {last.sequence}", "failure": None})
    changes = _restoring_changes(difference)
    if not changes and len(kept) < len(records):
        changes = [(Operation(kind="NOOP"), None, None)]  # the bank is the same, but a build must go on from the point
    return [
        JournalRecord(
            scope=scope,
            sequence=len(records) + number,
            operation=operation,
            before=before,
            after=after,
            source=source,
            num_following=len(changes) - number,
        )
        for number, (operation, before, after) in enumerate(changes, 1)
    ]


def count_records(scope: str, records: Sequence[JournalRecord]) -> BankStatistics:
    """The counts of one scope."""
    entries = fold_journal(records, scope)
    decided = [record for record in records if record.source.failure is None]
    return BankStatistics(
        scope=scope,
        num_records=len(records),
        num_turns=len({record.source.turn_id for record in records}),
        num_entries=len(entries),
        entries_by_speaker=dict(Counter(entry.speaker for entry in entries)),
        operations=dict(Counter(record.operation.kind for record in decided)),
        records_by_policy=dict(Counter(record.source.policy for record in records)),
        num_failures=len(records) - len(decided),
    )


def _restoring_changes(
    difference: BankDifference,
) -> list[tuple[Operation, MemoryEntry | None, MemoryEntry | None]]:
    removed = [(Operation(kind="DELETE", entry_id=e.id), e, None) for e in difference.removed]
    changed = [
        (Operation(kind="UPDATE", entry_id=c.after.id, text=c.after.text), c.before, c.after)
        for c in difference.changed
    ]
    added = [(Operation(kind="ADD", text=e.text), None, e) for e in difference.added]
    return [*removed, *changed, *added]


def _is_later(time: datetime, point: datetime) -> bool:
    """Times of conversations may lack a zone: then only the clocks are compared."""
    if (time.tzinfo is None) != (point.tzinfo is None):
        time, point = time.replace(tzinfo=None), point.replace(tzinfo=None)
    return time > point


def _share_turn(entry: MemoryEntry, other: MemoryEntry) -> bool:
    return entry.speaker == other.speaker and not set(entry.turn_ids).isdisjoint(other.turn_ids)
