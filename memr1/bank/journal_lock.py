"""The lock on a journal: one process has it, the others wait in line, and one that dies lets go of it. POSIX only."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from memr1.errors import BankUnavailable

Locked = TypeVar("Locked")
RETRY_SECONDS = 0.01  # between two looks at a lock that another process holds


def open_locked(path: Path, wait_seconds: float) -> int:
    """The open journal, made when it is missing; another process that has it is waited for so long.

    Raises BankUnavailable.
    """
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
