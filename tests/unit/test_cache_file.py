"""A cache on disk that processes share: the first value stays, a kill spoils nothing, a broken file is gone without."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from memr1.cache_file import CacheFile, content_key


def test_the_first_value_of_a_key_stays(tmp_path: Path) -> None:
    one, other = (CacheFile(tmp_path / "folder" / "f", "values") for _ in range(2))
    one.write({b"a": b"1", b"b": b"2"})
    other.write({b"a": b"3", b"c": b"4"})
    assert one.read([b"a", b"b", b"c", b"d"]) == {b"a": b"1", b"b": b"2", b"c": b"4"}


def test_tables_of_one_file_are_apart(tmp_path: Path) -> None:
    CacheFile(tmp_path / "f", "one").write({b"a": b"1"})
    assert CacheFile(tmp_path / "f", "other").read([b"a"]) == {}


def test_more_keys_than_a_query_takes_are_read(tmp_path: Path) -> None:
    values = {str(number).encode(): b"v" for number in range(1_234)}
    file = CacheFile(tmp_path / "f", "values")
    file.write(values)
    assert file.read([*values, b"unknown"]) == values


def test_processes_may_write_at_once_and_be_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from memr1.cache_file import CacheFile\n"
        "file = CacheFile(Path(sys.argv[1]), 'values')\n"
        "for n in range(200): file.write({b'%d' % n: sys.argv[2].encode()})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "f"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("x", "y")]
    assert [writer.wait() for writer in writers] == [-9, -9]
    found = CacheFile(path, "values").read([b"%d" % number for number in range(200)])
    assert len(found) == 200 and set(found.values()) <= {b"x", b"y"}


def test_a_file_that_is_no_database_is_logged_once_and_gone_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "f").write_bytes(b"certainly not a database " * 100)
    with caplog.at_level(logging.WARNING):
        file = CacheFile(tmp_path / "f", "values")
        file.write({b"a": b"1"})
        assert file.read([b"a"]) == {}
    assert caplog.text.count("going on without it") == 1


def test_a_key_stands_for_its_texts_in_their_order() -> None:
    assert content_key("a", "b") == content_key("a", "b")
    assert len({content_key("a", "b"), content_key("b", "a"), content_key("ab"), content_key("ab", "")}) == 4
