"""The journal file: one JSON line per applied operation, appended and synced, never rewritten.

A line ends with the checksum of what stands before it. Lines without one were written by an earlier memr1 and are read
as they are; behind a line that has one, every line must.

A line that a crash cut short, and the rest of an apply whose end is missing, are dropped when the file is opened
again: nobody was told that they had happened. Damage anywhere before the end is an error, never skipped.
POSIX only: a lock on the file keeps every other process out until it is closed, or its process has died.
"""

import fcntl
import logging
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from memr1.bank.operation import JournalRecord
from memr1.errors import BankError, BankUnavailable

log = logging.getLogger(__name__)
Locked = TypeVar("Locked")
RETRY_SECONDS = 0.01  # between two looks at a lock that another process holds
_CHECKSUM = re.compile(rb',"checksum":"([0-9a-f]{8})"}\n\Z')


class JournalFile:
    """An open journal. `records` is what it held when it was opened. Not to be shared by threads."""

    def __init__(self, path: Path, *, wait_seconds: float = 0.0) -> None:
        """Open or create `path`, cut off a torn end. Another process that has it open is waited for so long.

        Raises BankUnavailable, or BankError for a damaged file.
        """
        self.path = path
        self._pending: list[bytes] | None = None
        self._closed = False
        self._handle = _open_locked(path, wait_seconds)
        self._process = os.getpid()
        try:
            self.records, self._size = self._recover()
        except BankError:
            self.close()
            raise

    def append(self, records: Sequence[JournalRecord]) -> None:
        """Make the records durable; inside `group_commits`, when the block ends.

        Raises BankUnavailable, or BankError for text that no file can hold.
        """
        self._refuse_strangers()
        lines = [format_line(record) for record in records]
        if self._pending is None:
            self._write(lines)
        else:
            self._pending.extend(lines)

    @contextmanager
    def group_commits(self) -> Iterator[None]:
        """Gather what is appended inside the block and sync once at its end, also when the block raises."""
        if self._pending is not None:
            yield  # inside another group: the outer one writes
            return
        self._pending = []
        try:
            yield
        finally:
            lines, self._pending = self._pending, None
            if lines:
                self._refuse_strangers()
                self._write(lines)

    def close(self) -> None:
        """Release the file and its lock; may be called twice."""
        if not self._closed:
            self._closed = True
            if os.getpid() == self._process:
                fcntl.flock(self._handle, fcntl.LOCK_UN)  # a forked child may hold the file open for longer
            os.close(self._handle)

    def _refuse_strangers(self) -> None:
        if self._closed:
            raise BankUnavailable(f"the journal {self.path} is closed: open the bank store again")
        if os.getpid() != self._process:  # a fork inherits the lock: both would number their records alike
            raise BankUnavailable(
                f"the journal {self.path} was opened by process {self._process}, not this one: open a bank store here"
            )

    def _recover(self) -> tuple[list[JournalRecord], int]:
        with open(self._handle, "rb", closefd=False) as file:
            records, size = parse_journal(file, str(self.path))
            end = file.seek(0, os.SEEK_END)
        if size < end:
            log.warning("%s: dropped %d bytes of an operation that a crash had cut short", self.path, end - size)
            os.ftruncate(self._handle, size)
            os.fsync(self._handle)
        return records, size

    def _write(self, lines: Sequence[bytes]) -> None:
        data = b"".join(lines)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
            os.fsync(self._handle)
        except OSError as error:
            self._give_up()
            raise BankUnavailable(
                f"cannot append to the journal {self.path}: {error.strerror}. Free the disk, then open the store again"
            ) from error
        self._size += len(data)

    def _give_up(self) -> None:
        """After a failed write the file may end anywhere: cut it back, and take no more until it is opened again."""
        try:
            os.ftruncate(self._handle, self._size)
        except OSError as error:
            log.warning("%s: could not cut off a failed write (%s); the next opening will", self.path, error.strerror)
        self.close()


def read_journal(path: Path) -> list[JournalRecord]:
    """The whole records of a journal that may be in use elsewhere; the file is left as it is.

    A missing file is an empty journal. Raises BankUnavailable or BankError.
    """
    try:
        with path.open("rb") as file:
            return parse_journal(file, str(path))[0]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BankUnavailable(f"cannot read the journal {path}: {error.strerror}") from error


def records_by_scope(records: Iterable[JournalRecord]) -> dict[str, list[JournalRecord]]:
    """The records of each scope, scopes in the order of their first records."""
    scopes: dict[str, list[JournalRecord]] = {}
    for record in records:
        scopes.setdefault(record.scope, []).append(record)
    return scopes


def parse_journal(lines: Iterable[bytes], place: str) -> tuple[list[JournalRecord], int]:
    """The records of all whole applies, and the number of bytes they take. Raises BankError for damage inside."""
    records: list[JournalRecord] = []
    num_whole, whole_size, size = 0, 0, 0
    remaining = iter(lines)
    is_checked = False
    for number, line in enumerate(remaining, 1):
        is_checked = is_checked or _CHECKSUM.search(line) is not None
        record = _parse_line(line, is_checked)
        if record is None:
            _refuse_damage(remaining, f"{place}:{number}")
            break
        records.append(record)
        size += len(line)
        if record.num_following == 0:
            num_whole, whole_size = len(records), size
    return records[:num_whole], whole_size


def format_line(record: JournalRecord) -> bytes:
    """The record as a line of a journal: its JSON, and behind its fields the CRC-32 of that JSON.

    Raises BankError for a text that is not Unicode.
    """
    try:
        body = record.model_dump_json().encode()
    except PydanticSerializationError as error:
        raise BankError(
            f"record {record.sequence} of scope {record.scope!r} cannot be written ({error}): replace what is no text"
        ) from error
    return body[:-1] + b',"checksum":"%08x"}\n' % zlib.crc32(body)


def _parse_line(line: bytes, is_checked: bool) -> JournalRecord | None:
    """None for what is no record, or not the one that was written."""
    if not line.endswith(b"\n"):
        return None
    checksum = _CHECKSUM.search(line)
    if checksum is not None:
        line = line[: checksum.start()] + b"}"
        if zlib.crc32(line) != int(checksum[1], 16):
            return None
    elif is_checked:
        return None
    try:
        return JournalRecord.model_validate_json(line)
    except ValidationError:
        return None


def _refuse_damage(following: Iterator[bytes], place: str) -> None:
    """A crash can only spoil the end of the file; a readable record behind the spoilt one means something else did."""
    if any(_parse_line(line, is_checked=False) is not None for line in following):
        raise BankError(f"{place}: not a journal record, though records follow: restore the journal from a copy")


def _open_locked(path: Path, wait_seconds: float) -> int:
    deadline = time.monotonic() + wait_seconds
    try:
        with _place_in_line(path.parent, deadline) if wait_seconds else nullcontext():
            handle = _retry(lambda: _lock(path), deadline)
    except OSError as error:
        raise BankUnavailable(f"cannot open the journal {path}: {error.strerror}. Choose a writable folder") from error
    if handle is None:
        waited = f" since {wait_seconds:g} s" if wait_seconds else ""
        raise BankUnavailable(f"the journal {path} is in use{waited}: close the other bank store first")
    return handle


@contextmanager
def _place_in_line(folder: Path, deadline: float) -> Iterator[None]:
    """Only one of those who wait looks at the journal: whoever closes it and asks again comes behind that one."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _retry(lambda: _try_to_lock(handle), deadline)
        yield
    finally:
        os.close(handle)


def _retry(attempt: Callable[[], Locked | None], deadline: float) -> Locked | None:
    while (locked := attempt()) is None and time.monotonic() < deadline:
        time.sleep(RETRY_SECONDS)
    return locked


def _lock(path: Path) -> int | None:
    """The open and locked file; None while another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    if _try_to_lock(handle) and _is_at(handle, path):  # not deleted in between: nobody would ever read it
        if is_new:
            _sync_folder(path.parent)
        return handle
    os.close(handle)
    return None


def _try_to_lock(handle: int) -> bool | None:
    """True, or None while another process has the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """A new file survives a power cut only once its folder is synced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
