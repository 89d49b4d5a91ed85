"""The journal file: one JSON line per applied operation, appended and synced, never rewritten.

A line ends with the checksum of what stands before it. Lines without one were written by an earlier memr1 and are read
as they are; behind a line that has one, every line must.

A line that a crash cut short, and the rest of an apply whose end is missing, are dropped when the file is opened
again: nobody was told that they had happened. Damage anywhere before the end is an error, never skipped.
An open journal knows where each scope's lines lie, not what they say: they are read from the file when they are wanted.
POSIX only: a lock on the file keeps every other process out until it is closed, or its process has died.
"""

import fcntl
import io
import logging
import os
import re
import threading
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from memr1.bank.journal_lock import open_locked
from memr1.bank.operation import JournalRecord
from memr1.errors import BankError, BankUnavailable

log = logging.getLogger(__name__)
_CHECKSUM = re.compile(rb',"checksum":"([0-9a-f]{8})"}\n\Z')


class JournalFile:
    """An open journal. Threads may read it while one of them appends."""

    def __init__(self, path: Path, *, wait_seconds: float = 0.0) -> None:
        """Open or create `path`, cut off a torn end. Another process that has it open is waited for so long.

        Raises BankUnavailable, or BankError for a damaged file.
        """
        self.path = path
        self._places: dict[str, array[int]] = {}  # of each scope: start and end of a stretch of lines, and so on
        self._pending: bytearray | None = None  # what a group has appended: it will stand behind `_size`
        self._placing = threading.Lock()  # for moments, never during a write
        self._closed = False
        self._handle = open_locked(path, wait_seconds)
        self._process = os.getpid()
        try:
            self._size = self._recover()
        except BankError:
            self.close()
            raise

    def scopes(self) -> list[str]:
        """Every scope that has a record, in the order of their first ones."""
        return list(self._places)

    def read(self, scope: str) -> list[JournalRecord]:
        """The records of a scope, those of an unfinished group included; also of a journal that was closed.

        Raises BankUnavailable, or BankError for a file that was changed meanwhile.
        """
        with self._placing:
            places = list(self._places.get(scope, ()))
            size, pending = self._size, self._pending
        stretches = list(zip(places[::2], places[1::2], strict=True))
        written = _read_stretches(self.path, [stretch for stretch in stretches if stretch[0] < size])
        waiting = [bytes((pending or b"")[start - size : end - size]) for start, end in stretches[len(written) :]]
        data = b"".join((*written, *waiting))
        records = [_parse_line(line, is_checked=False) for line in io.BytesIO(data)]
        if None in records or len(data) != sum(end - start for start, end in stretches):
            raise BankError(f"the journal {self.path} was changed while it was open: restore it from a copy")
        return [record for record in records if record is not None]

    def append(self, records: Sequence[JournalRecord]) -> None:
        """Make the records durable; inside `group_commits`, when the block ends.

        Raises BankUnavailable, or BankError for text that no file can hold.
        """
        self._refuse_strangers()
        lines = [format_line(record) for record in records]
        start = self._size
        if self._pending is None:
            self._write(b"".join(lines))
        else:
            start += len(self._pending)
            self._pending += b"".join(lines)
        self._place(zip(records, map(len, lines), strict=True), start)

    @contextmanager
    def group_commits(self) -> Iterator[None]:
        """Gather what is appended inside the block and sync once at its end, also when the block raises."""
        if self._pending is not None:
            yield  # inside another group: the outer one writes
            return
        self._pending = bytearray()
        try:
            yield
        finally:
            self._write_pending(self._pending)

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

    def _recover(self) -> int:
        """The bytes of the file that are whole applies; their places are known then."""
        size = 0
        with open(self._handle, "rb", closefd=False) as file:
            for whole in scan_journal(file, str(self.path)):
                size = self._place(whole, size)
            end = file.seek(0, os.SEEK_END)
        if size < end:
            log.warning("%s: dropped %d bytes of an operation that a crash had cut short", self.path, end - size)
            os.ftruncate(self._handle, size)
            os.fsync(self._handle)
        return size

    def _place(self, sized: Iterable[tuple[JournalRecord, int]], start: int) -> int:
        """Remember where the lines of these records lie, from `start` on; return where they end."""
        last: str | None = None
        with self._placing:
            for record, size in sized:
                places = self._places.setdefault(record.scope, array("q"))
                if last == record.scope and places:
                    places[-1] += size
                else:
                    places.extend((start, start + size))
                last, start = record.scope, start + size
        return start

    def _write_pending(self, lines: bytearray) -> None:
        try:
            if lines:
                self._refuse_strangers()
                self._write(lines)
        except BaseException:  # raised again; also after an interrupt nothing may point at lines that are in no file
            self._forget_unwritten()
            raise
        finally:
            self._pending = None

    def _forget_unwritten(self) -> None:
        with self._placing:
            for places in self._places.values():
                while places and places[-2] >= self._size:
                    del places[-2:]
            self._places = {scope: places for scope, places in self._places.items() if places}

    def _write(self, data: bytes | bytearray) -> None:
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
        except BaseException:  # raised again; also after an interrupt nothing may be appended behind half a write
            self._give_up()
            raise
        self._size += len(data)

    def _give_up(self) -> None:
        """After a write that failed or was interrupted the file may end anywhere: cut it back, and take no more until
        it is opened again."""
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
    sized = [item for whole in scan_journal(lines, place) for item in whole]
    return [record for record, _ in sized], sum(size for _, size in sized)


def scan_journal(lines: Iterable[bytes], place: str) -> Iterator[list[tuple[JournalRecord, int]]]:
    """One whole apply after another: its records, each with the bytes of its line. Raises BankError for damage."""
    apply: list[tuple[JournalRecord, int]] = []
    remaining = iter(lines)
    is_checked = False
    for number, line in enumerate(remaining, 1):
        is_checked = is_checked or _CHECKSUM.search(line) is not None
        record = _parse_line(line, is_checked)
        if record is None:
            _refuse_damage(remaining, f"{place}:{number}")
            return
        apply.append((record, len(line)))
        if record.num_following == 0:
            yield apply
            apply = []


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


def _read_stretches(path: Path, stretches: Sequence[tuple[int, int]]) -> list[bytes]:
    """What lies between these starts and ends."""
    if not stretches:
        return []
    try:
        with path.open("rb", buffering=0) as file:
            return [os.pread(file.fileno(), end - start, start) for start, end in stretches]
    except OSError as error:
        raise BankUnavailable(f"cannot read the journal {path}: {error.strerror}") from error


def _refuse_damage(following: Iterator[bytes], place: str) -> None:
    """A crash can only spoil the end of the file; a readable record behind the spoilt one means something else did."""
    if any(_parse_line(line, is_checked=False) is not None for line in following):
        raise BankError(f"{place}: not a journal record, though records follow: restore the journal from a copy")
