"""What a memory bank is: operations applied one after another, a journal of them, and entries folded from it.

Everything here is pure. A bank belongs to one scope (a conversation or a user) and knows nothing of any other.
An entry's id is the sequence number of the journal record that added it, so that a replay gives the same ids.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pydantic import ValidationError

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
    """The banks of many scopes. Threads may share it: their changes take turns, and reading waits for none."""

    def bank(self, scope: str) -> MemoryBank:
        """The bank of a scope; an unknown scope's is empty. The same object every time.

        Raises BankError for a scope that is not Unicode.
        """
        ...

    def scopes(self) -> list[str]:
        """Every scope that has a journal, in the order of their first records."""
        ...

    def group_commits(self) -> AbstractContextManager[None]:
        """Make everything applied inside the block durable at its end, at the price of one disk sync.

        No other thread changes the store meanwhile: what is read inside the block holds until its end.
        """
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


def check_scope(scope: str) -> None:
    """Raises BankError for a scope that is not Unicode: no file can hold it, and its digest may be another's."""
    try:
        scope.encode()
    except UnicodeEncodeError as error:
        raise BankError(f"scope {scope!r} has half a surrogate pair ({error}): give it a name that is text") from error


def fold_journal(records: Iterable[JournalRecord], scope: str) -> list[MemoryEntry]:
    """The entries of a scope after its records (other scopes' are skipped). A prefix gives an earlier state.

    Raises BankError when the records contradict each other: a gap, a `before` that is not what the bank held, an entry
    of another scope, or an id that no record can have given.
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
    if record.sequence != expected or (changed is not None and not _may_change(entries, record, changed)):
        raise BankError(
            f"the journal of scope {record.scope!r} contradicts itself at record {record.sequence} (expected number "
            f"{expected}, {record.operation.kind} of entry {changed.id if changed else 'none'}): restore it from a copy"
        )
    if after is not None:
        entries[after.id] = after
    elif before is not None:
        del entries[before.id]


def _may_change(entries: dict[str, MemoryEntry], record: JournalRecord, changed: MemoryEntry) -> bool:
    """Whether `changed` is as it was before, or new, in the record's own scope, with an id that was given by then."""
    if entries.get(changed.id) != record.before or changed.scope != record.scope:
        return False
    is_number = changed.id.isascii() and changed.id.isdigit() and len(changed.id) <= len(str(record.sequence))
    return is_number and changed.id[0] != "0" and int(changed.id) <= record.sequence


def _change(
    entries: Sequence[MemoryEntry], operation: Operation, source: Source, scope: str, sequence: int
) -> tuple[MemoryEntry | None, MemoryEntry | None, int]:
    """The entry before, the entry after, and its place in the list."""
    if operation.kind == "NOOP":
        return None, None, len(entries)
    if operation.kind != "DELETE" and not operation.text.strip():
        raise BankError(f"{operation.kind} at turn {source.turn_id!r} of scope {scope!r} has no text: give it one")
    if operation.kind == "ADD":
        return None, _write_entry(str(sequence), scope, source.speaker, operation, source, ()), len(entries)
    place = _find(entries, operation, source, scope)
    before = entries[place]
    if operation.kind == "DELETE":
        return before, None, place
    return before, _write_entry(before.id, scope, before.speaker, operation, source, before.turn_ids), place


def _find(entries: Sequence[MemoryEntry], operation: Operation, source: Source, scope: str) -> int:
    for place, entry in enumerate(entries):
        if entry.id == operation.entry_id:
            return place
    raise UnknownEntry(
        f"{operation.kind} at turn {source.turn_id!r} names entry {operation.entry_id[:80]!r}, which the bank of scope "
        f"{scope!r} ({len(entries)} entries) does not hold: name one that it holds"
    )


def _write_entry(
    entry_id: str, scope: str, speaker: str, operation: Operation, source: Source, turn_ids: tuple[str, ...]
) -> MemoryEntry:
    """An entry in the operation's words. A record that was copied with a change may hold what is no text: BankError."""
    if source.turn_id not in turn_ids:
        turn_ids = (*turn_ids, source.turn_id)
    try:
        return MemoryEntry(
            id=entry_id, scope=scope, speaker=speaker, text=operation.text, time=source.time, turn_ids=turn_ids
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        raise BankError(
            f"{operation.kind} at turn {source.turn_id!r} of scope {scope!r} cannot be stored: {wrong['msg']} (in "
            f"{wrong['loc'][0]}): replace what is no text"
        ) from error


def _replaced(entries: Sequence[MemoryEntry], place: int, after: MemoryEntry | None) -> list[MemoryEntry]:
    changed = list(entries)
    changed[place : place + 1] = [] if after is None else [after]
    return changed
