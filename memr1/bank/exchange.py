"""Bank stores as the command line names them, and their journals as files that travel: JSON Lines, without loss.

A journal is the truth of every kind of store, so all of this works on it alone; what a store derives from it (a table,
a server's collection) is brought in line when the store is opened the next time.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from memr1.bank.bank import fold_journal
from memr1.bank.history import Point, restoring_records
from memr1.bank.in_memory import JOURNAL_NAME
from memr1.bank.journal import JournalFile, format_line, parse_journal, read_journal, records_by_scope
from memr1.bank.operation import JournalRecord
from memr1.errors import BankError, BankUnavailable
from memr1.run_dir import RunDir


def find_journal(place: Path) -> Path:
    """The journal of a store's folder, of a run's training banks, or the file itself. Raises BankError."""
    candidates = [place / JOURNAL_NAME, RunDir(place).bank / "store" / JOURNAL_NAME]
    found = [place] if place.is_file() else [path for path in candidates if path.is_file()]
    if not found:
        raise BankError(f"{place} holds no bank: name a folder with a {JOURNAL_NAME}, such a file, or a run directory")
    return found[0]


def read_scope(place: Path, scope: str | None) -> list[JournalRecord]:
    """The records of one scope; `scope` may be None where there is only one. Raises BankError."""
    by_scope = records_by_scope(read_journal(find_journal(place)))
    if scope is None and len(by_scope) == 1:
        return next(iter(by_scope.values()))
    if scope not in by_scope:
        known = ", ".join(list(by_scope)[:5]) + (" …" if len(by_scope) > 5 else "")
        wanted = "name a scope" if scope is None else f"{place} has no scope {scope!r}"
        raise BankError(f"{wanted}: it holds {len(by_scope)} ({known})")
    return by_scope[scope]


def restore_bank(place: Path, scope: str | None, point: Point) -> list[JournalRecord]:
    """Append what brings a scope back to a point, and return it. Nothing is taken away: a restore can be restored.

    Raises BankError for a point that it does not have, BankUnavailable while a store is open.
    """
    with closing(JournalFile(find_journal(place))) as journal:
        records = restoring_records(read_scope(place, scope), point)
        if records:
            journal.append(records)
    return records


def export_bank(place: Path, file: Path, scope: str | None = None) -> int:
    """Write the records of all scopes (one scope behind the other), or of one, with their checksums.

    The file appears when it is whole; one that exists is left alone. The same banks give the same bytes, in whatever
    order their journals grew side by side. Returns the number of records. Raises BankError.
    """
    scopes = records_by_scope(read_journal(find_journal(place)) if scope is None else read_scope(place, scope))
    records = [record for its in scopes.values() for record in its]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(file, map(format_line, records))
    except FileExistsError as error:
        raise BankError(f"{file} exists: choose another name") from error
    except OSError as error:
        raise BankUnavailable(f"cannot write {file}: {error.strerror}") from error
    return len(records)


def import_bank(file: Path, folder: Path) -> int:
    """Append an exported file to the store of `folder`, which may be new; return the number of records appended.

    An import that was interrupted may be repeated: what is there already is not appended again. Raises BankError, and
    changes nothing, for a file that is damaged, cut short or contradicts itself, and for a scope that the store has
    with another history.
    """
    scopes = records_by_scope(_read_whole(file))
    folder.mkdir(parents=True, exist_ok=True)
    with closing(JournalFile(folder / JOURNAL_NAME)) as journal:
        held = {scope: journal.read(scope) for scope in scopes}
        grown_apart = [scope for scope, its in scopes.items() if its[: len(held[scope])] != held[scope]]
        if grown_apart:
            raise BankError(
                f"{folder} has scope {grown_apart[0]!r} already, with another history: import into a folder of its own"
            )
        missing = [record for scope, its in scopes.items() for record in its[len(held[scope]) :]]
        journal.append(missing)
    return len(missing)


def _write_whole(file: Path, lines: Iterable[bytes]) -> None:
    """Raises FileExistsError, or another OSError; a file of this name is then as it was."""
    if file.exists():
        raise FileExistsError(file)
    partial = file.with_name(file.name + ".partial")
    with partial.open("wb") as written:
        written.writelines(lines)
        written.flush()
        os.fsync(written.fileno())
    os.replace(partial, file)


def _read_whole(file: Path) -> Sequence[JournalRecord]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BankError(f"cannot read {file}: {error.strerror}") from error
    records, size = parse_journal(data.splitlines(keepends=True), str(file))
    if size < len(data):
        raise BankError(
            f"{file} is damaged or cut short behind byte {size} ({len(records)} whole records): export it again"
        )
    for scope, its in records_by_scope(records).items():
        fold_journal(its, scope)  # refuses contradictions
    return records
