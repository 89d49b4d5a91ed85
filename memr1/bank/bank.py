"""What a memory bank is: operations applied one after another, a journal of them, and entries folded from it.

Everything here is pure. A bank belongs to one scope (a conversation or a user) and knows nothing of any other.
An entry's id is the sequence number of the journal record that added it, so that a replay gives the same ids.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.errors import BankError, UnknownEntry


class MemoryBank(Protocol):
    """The entries of one scope. Entries are always listed in the order in which they were added."""

    scope: str

    def entries(self, speaker: str | None = None) -> list[MemoryEntry]:
        """All entries, or those of one speaker."""
        ...

    def apply(self, operations: Sequence[Operation], source: Source) -> list[JournalRecord]:
        """Apply all operations or none, and return their records once they are durable.

        No operation at all is recorded as one NOOP, so that the journal shows every turn that was read.
        Raises UnknownEntry for an id that the bank does not hold, BankError for an ADD or UPDATE without text.
        """
        ...

    def retrieve(self, query: str, *, speaker: str | None, limit: int) -> list[MemoryEntry]:
        """At most `limit` entries (of one speaker, or of all), best first."""
        ...

    def journal(self) -> list[JournalRecord]:
        """Every record of the scope, oldest first."""
        ...


class BankStore(Protocol):
    """The banks of many scopes."""

    def bank(self, scope: str) -> MemoryBank:
        """The bank of a scope; an unknown scope's is empty. The same object every time."""
        ...

    def scopes(self) -> list[str]:
        """Every scope that has a journal, in the order of their first records."""
        ...

    def group_commits(self) -> AbstractContextManager[None]:
        """Make everything applied inside the block durable at its end, at the price of one disk sync."""
        ...

    def close(self) -> None:
        """Write what is pending and let go of files. A closed store refuses changes."""
        ...


def apply_operation(
    entries: Sequence[MemoryEntry], operation: Operation, source: Source, *, scope: str, sequence: int
) -> list[MemoryEntry]:
    """The entries after the operation; `entries` itself is left alone.

    ADD appends an entry of the source's speaker. UPDATE replaces the text in place, appends its turn and takes the
    source's time. Raises UnknownEntry for an id that is not held, BankError for an ADD or UPDATE without text.
    """
    _, after, place = _change(entries, operation, source, scope, sequence)
    return _replaced(entries, place, after)


def record_operations(
    entries: Sequence[MemoryEntry], operations: Sequence[Operation], source: Source, *, scope: str, sequence: int
) -> tuple[list[MemoryEntry], list[JournalRecord]]:
    """Apply the operations one after another from `sequence` on: the entries afterwards, and one record each.

    No operation gives one NOOP record. Raises what `apply_operation` raises; then nothing has changed.
    """
    current = list(entries)
    records: list[JournalRecord] = []
    wanted = operations or (Operation(kind="NOOP"),)
    for number, operation in enumerate(wanted):
        before, after, place = _change(current, operation, source, scope, sequence + number)
        current = _replaced(current, place, after)
        records.append(
            JournalRecord(
                scope=scope,
                sequence=sequence + number,
                operation=operation,
                before=before,
                after=after,
                source=source,
                num_following=len(wanted) - 1 - number,
            )
        )
    return current, records


def fold_journal(records: Iterable[JournalRecord], scope: str) -> list[MemoryEntry]:
    """The entries of a scope after its records (other scopes' are skipped). A prefix gives an earlier state.

    Raises BankError when the records contradict each other: a gap, or a `before` that is not what the bank held.
    """
    entries: dict[str, MemoryEntry] = {}
    expected = 1
    for record in records:
        if record.scope != scope:
            continue
        _fold_record(entries, record, expected)
        expected += 1
    return sorted(
        entries.values(), key=lambda entry: int(entry.id)
    )  # as added: a restored entry goes back to its place


def _fold_record(entries: dict[str, MemoryEntry], record: JournalRecord, expected: int) -> None:
    before, after = record.before, record.after
    changed = after or before
    if record.sequence != expected or (changed is not None and entries.get(changed.id) != before):
        raise BankError(
            f"the journal of scope {record.scope!r} contradicts itself at record {record.sequence} (expected number "
            f"{expected}, {record.operation.kind} of entry {changed.id if changed else 'none'}): restore it from a copy"
        )
    if after is not None:
        entries[after.id] = after
    elif before is not None:
        del entries[before.id]


def _change(
    entries: Sequence[MemoryEntry], operation: Operation, source: Source, scope: str, sequence: int
) -> tuple[MemoryEntry | None, MemoryEntry | None, int]:
    """The entry before, the entry after, and its place in the list."""
    if operation.kind == "NOOP":
        return None, None, len(entries)
    if operation.kind != "DELETE" and not operation.text.strip():
        raise BankError(f"{operation.kind} at turn {source.turn_id!r} of scope {scope!r} has no text: give it one")
    if operation.kind == "ADD":
        added = MemoryEntry(
            id=str(sequence),
            scope=scope,
            speaker=source.speaker,
            text=operation.text,
            time=source.time,
            turn_ids=(source.turn_id,),
        )
        return None, added, len(entries)
    place = _find(entries, operation, source, scope)
    before = entries[place]
    return before, None if operation.kind == "DELETE" else _updated(before, operation, source), place


def _find(entries: Sequence[MemoryEntry], operation: Operation, source: Source, scope: str) -> int:
    for place, entry in enumerate(entries):
        if entry.id == operation.entry_id:
            return place
    raise UnknownEntry(
        f"{operation.kind} at turn {source.turn_id!r} names entry {operation.entry_id!r}, which the bank of scope "
        f"{scope!r} ({len(entries)} entries) does not hold: name one that it holds"
    )


def _updated(entry: MemoryEntry, operation: Operation, source: Source) -> MemoryEntry:
    turn_ids = entry.turn_ids if source.turn_id in entry.turn_ids else (*entry.turn_ids, source.turn_id)
    return entry.model_copy(update={"text": operation.text, "time": source.time, "turn_ids": turn_ids})


def _replaced(entries: Sequence[MemoryEntry], place: int, after: MemoryEntry | None) -> list[MemoryEntry]:
    changed = list(entries)
    changed[place : place + 1] = [] if after is None else [after]
    return changed
