"""The journal file: durable, locked, and honest about what a crash or a bad disk did to it."""

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import pytest

from memr1.bank.bank import record_operations
from memr1.bank.journal import JournalFile, parse_journal, read_journal, records_by_scope
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.errors import BankError, BankUnavailable
from tests.processes import wait_until

NEWLINES = "a\nb\r\u2028\u0085c"


def applied(scope: str, sequence: int, *texts: str) -> list[JournalRecord]:
    """The records of one apply that adds these texts."""
    source = Source(turn_id=f"D1:{sequence}", speaker="Marta", time=datetime(2024, 5, 1), policy="test")
    operations = [Operation(kind="ADD", text=text) for text in texts]
    return record_operations([], operations, source, scope=scope, sequence=sequence)[1]


def write_applies(path: Path, applies: Sequence[Sequence[JournalRecord]]) -> None:
    journal = JournalFile(path)
    for records in applies:
        journal.append(records)
    journal.close()


def test_records_come_back_as_they_were_appended(tmp_path: Path) -> None:
    applies = [applied("a", 1, NEWLINES), applied("b", 1, "x", "y"), applied("a", 2)]
    write_applies(tmp_path / "journal.jsonl", applies)
    expected = [record for records in applies for record in records]
    journal = JournalFile(tmp_path / "journal.jsonl")
    assert read_journal(tmp_path / "journal.jsonl") == expected
    assert {scope: journal.read(scope) for scope in journal.scopes()} == records_by_scope(expected)
    assert records_by_scope(expected) == {"a": applies[0] + applies[2], "b": applies[1]}
    journal.close()


def test_a_missing_journal_reads_as_empty_and_is_not_created(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") == []
    assert not (tmp_path / "none.jsonl").exists()


def test_a_tail_torn_at_any_byte_drops_exactly_the_unfinished_apply(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    applies = [applied("a", 1, "one"), applied("a", 2, "two", "three"), applied("b", 1, NEWLINES, "four")]
    ends = []
    for records in applies:
        write_applies(path, [records])
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        num_whole = sum(end <= size for end in ends)
        expected = [record for records in applies[:num_whole] for record in records]
        assert parse_journal(whole[:size].splitlines(keepends=True), "j") == (expected, ([0, *ends])[num_whole])


@pytest.mark.parametrize("garbage", [b"\0" * 700, b"\n\n", b'{"scope": 1}\n', b"\xff\xfe\n"])
def test_garbage_at_the_end_is_cut_off_and_logged_and_appending_goes_on(
    tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.jsonl"
    write_applies(path, [applied("a", 1, "one")])
    path.write_bytes(path.read_bytes() + garbage)
    with caplog.at_level(logging.WARNING):
        write_applies(path, [applied("a", 2, "two")])
    assert [record.operation.text for record in read_journal(path)] == ["one", "two"]
    assert f"dropped {len(garbage)} bytes" in caplog.text


def test_damage_before_the_end_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write_applies(path, [applied("a", number, f"text {number}") for number in (1, 2, 3)])
    damaged = path.read_bytes().replace(b'"text 2"', b'"text 2', 1)
    path.write_bytes(damaged)
    with pytest.raises(BankError, match=r"journal\.jsonl:2: not a journal record"):
        JournalFile(path)
    assert path.read_bytes() == damaged


def test_a_group_is_on_disk_only_when_its_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = JournalFile(path)
    with journal.group_commits(), journal.group_commits():
        journal.append(applied("a", 1, "one"))
        journal.append(applied("b", 1, "two"))
        assert path.stat().st_size == 0
    assert [record.scope for record in read_journal(path)] == ["a", "b"]
    journal.close()


def test_a_journal_in_use_is_refused_and_free_again_after_closing(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path / "journal.jsonl")
    with pytest.raises(BankUnavailable, match="in use"):
        JournalFile(tmp_path / "journal.jsonl")
    journal.close()
    JournalFile(tmp_path / "journal.jsonl").close()


def test_a_closed_journal_refuses_to_append(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path / "journal.jsonl")
    journal.close()
    with pytest.raises(BankUnavailable, match="closed"):
        journal.append(applied("a", 1, "one"))


def test_a_folder_cannot_be_read_as_a_journal(tmp_path: Path) -> None:
    with pytest.raises(BankUnavailable, match="cannot read"):
        read_journal(tmp_path)


FULL_DISK = """
import resource, sys
from datetime import datetime
from pathlib import Path
from memr1.bank.bank import record_operations
from memr1.bank.journal import JournalFile
from memr1.bank.operation import Operation, Source
from memr1.errors import BankUnavailable
source = Source(turn_id="D1:1", speaker="Marta", time=datetime(2024, 5, 1), policy="test")
def applied(sequence, text):
    return record_operations([], [Operation(kind="ADD", text=text)], source, scope="a", sequence=sequence)[1]
path = Path(sys.argv[1])
journal = JournalFile(path)
journal.append(applied(1, "kept"))
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, resource.RLIM_INFINITY))
for text in ("lost", "refused"):
    try:
        journal.append(applied(2, text))
    except BankUnavailable as error:
        print(error)
"""


def test_a_write_that_fails_half_way_is_cut_back_and_the_journal_takes_no_more(tmp_path: Path) -> None:
    """A file-size limit stands for a full disk: the write stops after 100 bytes."""
    path = tmp_path / "journal.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], check=True, stdout=subprocess.PIPE, text=True)
    first, second = done.stdout.splitlines()
    assert "cannot append" in first and "File too large" in first
    assert "closed" in second
    assert [record.operation.text for record in read_journal(path)] == ["kept"]


def test_a_changed_byte_inside_a_line_is_damage_although_it_still_parses(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write_applies(path, [applied("a", 1, "lives in Rome"), applied("a", 2, "x")])
    path.write_bytes(path.read_bytes().replace(b"Rome", b"Oslo"))
    with pytest.raises(BankError, match=r"journal\.jsonl:1"):
        JournalFile(path)


def test_a_changed_byte_in_the_last_line_drops_it_like_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = applied("a", 1, "x")
    write_applies(path, [first, applied("a", 2, "lives in Rome")])
    path.write_bytes(path.read_bytes().replace(b"Rome", b"Oslo"))
    assert read_journal(path) == first


def test_journals_without_checksums_are_read_and_continued_with_them(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    old = applied("a", 1, 'ends in ,"checksum":"00000000"}')
    path.write_text("".join(record.model_dump_json() + "\n" for record in old))
    new = applied("a", 2, "y")
    write_applies(path, [new])
    assert read_journal(path) == [*old, *new]
    assert [b'"checksum":"' in line[-24:] for line in path.read_bytes().splitlines()] == [False, True]


def test_a_line_that_lost_its_checksum_behind_one_that_has_it_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    bare = applied("a", 2, "y")[0].model_dump_json()
    write_applies(path, [applied("a", 1, "x")])
    whole = path.read_bytes()
    path.write_bytes(whole + bare.encode() + b"\n" + whole)
    with pytest.raises(BankError, match=r"journal\.jsonl:2"):
        read_journal(path)


def test_a_journal_in_use_is_waited_for(tmp_path: Path) -> None:
    first = JournalFile(tmp_path / "journal.jsonl")
    first.append(applied("a", 1, "one"))
    threading.Timer(0.2, first.close).start()
    second = JournalFile(tmp_path / "journal.jsonl", wait_seconds=60)
    assert [record.operation.text for record in second.read("a")] == ["one"]
    second.close()


def test_whoever_closes_a_journal_and_asks_again_comes_behind_those_who_wait(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = JournalFile(path)

    def write_once() -> None:
        waiting = JournalFile(path, wait_seconds=60)
        waiting.append(applied("a", 1, "waited"))
        waiting.close()

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(write_once)
        wait_until(lambda: is_locked(tmp_path))
        journal.close()
        journal = JournalFile(path, wait_seconds=60)
        other.result()
    assert [record.operation.text for record in journal.read("a")] == ["waited"]
    journal.close()


def is_locked(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def test_a_journal_that_stays_in_use_is_given_up_when_the_wait_is_over(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path / "journal.jsonl")
    with pytest.raises(BankUnavailable, match=r"in use since 0\.05 s"):
        JournalFile(tmp_path / "journal.jsonl", wait_seconds=0.05)
    journal.close()


def test_a_journal_whose_folder_is_deleted_during_the_wait_is_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    former = JournalFile(folder / "journal.jsonl")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(JournalFile, folder / "journal.jsonl", wait_seconds=60)
        shutil.rmtree(folder)
        former.close()
        journal = waiting.result()
    journal.append(applied("a", 1, "one"))
    assert len(read_journal(folder / "journal.jsonl")) == 1
    journal.close()


def test_a_forked_child_cannot_write_to_its_parents_journal_nor_keep_or_free_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    done = subprocess.run([sys.executable, "-c", FORK, str(path)], check=True, stdout=subprocess.PIPE, text=True)
    told = done.stdout.splitlines()
    assert "was opened by process" in told[0]
    assert "in use" in told[1]  # although the child has closed it
    assert told[2:] == ["appended", "opened again"]  # although another child has it open


FORK = """
import os, sys, time
from datetime import datetime
from pathlib import Path
from memr1.bank.bank import record_operations
from memr1.bank.journal import JournalFile
from memr1.bank.operation import Operation, Source
from memr1.errors import BankUnavailable
source = Source(turn_id="D1:1", speaker="Marta", time=datetime(2024, 5, 1), policy="test")
records = record_operations([], [Operation(kind="ADD", text="x")], source, scope="a", sequence=1)[1]
path = Path(sys.argv[1])
journal = JournalFile(path)
child = os.fork()
if not child:
    try:
        journal.append(records)
    except BankUnavailable as error:
        print(error, flush=True)
    journal.close()
    os._exit(0)
os.waitpid(child, 0)
try:
    JournalFile(path)
except BankUnavailable as error:
    print(error, flush=True)
journal.append(records)
print("appended", flush=True)
idle = os.fork()
if not idle:
    time.sleep(600)
try:
    journal.close()
    JournalFile(path).close()
    print("opened again", flush=True)
finally:
    os.kill(idle, 9)
"""


def test_a_journal_closed_inside_a_group_writes_into_no_other_file(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path / "journal.jsonl")
    with pytest.raises(BankUnavailable, match="closed"), journal.group_commits():
        journal.append(applied("a", 1, "lost"))
        journal.close()
        other = (tmp_path / "other").open("wb")  # gets the number that the journal's file had
    other.close()
    assert (tmp_path / "other").read_bytes() == b""


def test_a_record_that_no_file_can_hold_is_refused_alone(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path / "journal.jsonl")
    (bad,) = applied("a", 2, "x")
    bad = bad.model_copy(update={"source": bad.source.model_copy(update={"failure": "\ud800"})})
    with journal.group_commits():
        journal.append(applied("a", 1, "one"))
        with pytest.raises(BankError, match=r"record 2 of scope 'a' cannot be written.*surrogate"):
            journal.append([bad])
        journal.append(applied("a", 2, "two"))
    journal.close()
    assert [record.operation.text for record in read_journal(tmp_path / "journal.jsonl")] == ["one", "two"]


def test_a_scope_is_read_while_its_group_is_open_and_after_it(tmp_path: Path) -> None:
    applies = [applied("a", 1, "one"), applied("b", 1, NEWLINES, "two"), applied("a", 2, "three"), applied("a", 3)]
    journal = JournalFile(tmp_path / "journal.jsonl")
    journal.append(applies[0])
    with journal.group_commits():
        for records in applies[1:]:
            journal.append(records)
        assert journal.read("a") == applies[0] + applies[2] + applies[3]
        assert journal.read("b") == applies[1]
    assert journal.scopes() == ["a", "b"]
    assert journal.read("a") == applies[0] + applies[2] + applies[3]
    assert (journal.read("b"), journal.read("c")) == (applies[1], [])
    journal.close()
    assert journal.read("b") == applies[1]


def test_what_a_group_lost_is_not_read(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path / "journal.jsonl")
    journal.append(applied("a", 1, "kept"))
    with pytest.raises(BankUnavailable, match="closed"), journal.group_commits():
        journal.append(applied("a", 2, "lost"))
        journal.append(applied("b", 1, "lost"))
        journal.close()
    assert journal.scopes() == ["a"]
    assert [record.operation.text for record in journal.read("a")] == ["kept"]


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("in_group", [False, True])
def test_an_interrupt_during_a_write_leaves_what_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, in_group: bool
) -> None:
    """Whoever goes on after Ctrl-C must open the journal again, and finds nothing twice and no gap."""

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    path = tmp_path / "journal.jsonl"
    journal = JournalFile(path)
    journal.append(applied("a", 1, "kept"))
    with monkeypatch.context() as planted, pytest.raises(KeyboardInterrupt):
        planted.setattr(os, call, interrupt)
        with journal.group_commits() if in_group else nullcontext():
            journal.append(applied("a", 2, "lost"))
    with pytest.raises(BankUnavailable, match="closed"):
        journal.append(applied("a", 2, "too late"))
    journal = JournalFile(path)
    journal.append(applied("a", 2, "again"))
    journal.close()
    assert [record.operation.text for record in read_journal(path)] == ["kept", "again"]


def test_a_journal_that_is_changed_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = JournalFile(path)
    journal.append(applied("a", 1, "lives in Rome"))
    path.write_bytes(path.read_bytes().replace(b"Rome", b"Oslo"))
    with pytest.raises(BankError, match="was changed while it was open"):
        journal.read("a")
    path.write_bytes(b"")
    with pytest.raises(BankError, match="was changed while it was open"):
        journal.read("a")
    journal.close()
