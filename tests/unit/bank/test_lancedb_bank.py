"""What only the LanceDB store can get wrong: its table falling out of step with the journal."""

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

import lancedb
import pytest

from memr1.bank.embedding import HashEmbedder, Vectors
from memr1.bank.entry import MemoryEntry
from memr1.bank.lancedb_bank import ROWS_PER_WRITE, TABLE_NAME, WRITES_PER_TIDY, EntryTable, LanceStore
from memr1.bank.mirrored import Key, MirroredStore
from memr1.bank.operation import Operation, Source
from memr1.errors import BankUnavailable
from tests.bank_histories import CountingEmbedder, apply_steps, assert_same_banks

ROOT = Path(__file__).parents[3]  # where `tests` can be imported from


def assert_undisturbed(folder: Path, num_steps: int) -> None:
    """The store in `folder` equals one that applied the same steps in peace; so does its table after closing."""
    with closing(LanceStore(folder, HashEmbedder())) as store:
        reference = assert_same_banks(store, num_steps)
    assert table_texts(folder) == sorted(
        (scope, entry.text) for scope in reference.scopes() for entry in reference.bank(scope).entries()
    )


def table_texts(folder: Path) -> list[tuple[str, str]]:
    rows = lancedb.connect(folder).open_table(TABLE_NAME).search().to_list()
    return sorted((row["scope"], row["text"]) for row in rows)


@pytest.mark.parametrize("rows_per_write", [1, 7, 512])
def test_the_table_equals_the_journal_after_closing(tmp_path: Path, rows_per_write: int) -> None:
    with closing(LanceStore(tmp_path, HashEmbedder(), rows_per_write=rows_per_write)) as store:
        apply_steps(store, 0, 20)
    assert_undisturbed(tmp_path, 20)


def test_the_table_is_written_behind_the_journal_in_batches(tmp_path: Path) -> None:
    with closing(LanceStore(tmp_path, HashEmbedder(), rows_per_write=5)) as store:
        apply_steps(store, 1, 3)
        assert table_texts(tmp_path) == []
        apply_steps(store, 3, 5)
        assert len(table_texts(tmp_path)) >= 5


def test_reopening_takes_vectors_from_the_table(tmp_path: Path) -> None:
    with closing(LanceStore(tmp_path, HashEmbedder())) as store:
        apply_steps(store, 0, 10)
    embedder = CountingEmbedder()
    with closing(LanceStore(tmp_path, embedder)) as store:
        for scope in store.scopes():
            store.bank(scope).retrieve("question", speaker=None, limit=3)
    assert embedder.texts == ["question"] * 3


def test_a_table_of_another_embedder_is_built_again(tmp_path: Path) -> None:
    with closing(LanceStore(tmp_path, HashEmbedder(16))) as store:
        apply_steps(store, 0, 10)
    assert_undisturbed(tmp_path, 10)


@pytest.mark.parametrize("pattern", ["_versions/*.manifest", "data/*.lance"])
def test_a_damaged_table_is_built_again_from_the_journal(
    tmp_path: Path, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(LanceStore(tmp_path, HashEmbedder())) as store:
        apply_steps(store, 0, 10)
    for path in (tmp_path / f"{TABLE_NAME}.lance").glob(pattern):
        path.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert_undisturbed(tmp_path, 10)
    assert "building it again" in caplog.text


def test_a_table_that_ran_ahead_of_a_lost_journal_end_is_cut_back(tmp_path: Path) -> None:
    """The same as a crash inside a grouped commit: rows were written, their records were not."""
    with closing(LanceStore(tmp_path, HashEmbedder(), rows_per_write=1)) as store:
        apply_steps(store, 0, 6)
        end = (tmp_path / "journal.jsonl").stat().st_size
        apply_steps(store, 6, 9)
    with (tmp_path / "journal.jsonl").open("r+b") as file:
        file.truncate(end + 50)
    assert_undisturbed(tmp_path, 6)


def test_rows_that_ran_ahead_give_way_to_what_is_applied_after_them(tmp_path: Path) -> None:
    """The entries that are added anew have the ids of rows that are still there."""
    with closing(LanceStore(tmp_path, HashEmbedder(), rows_per_write=1)) as store:
        apply_steps(store, 0, 6)
        end = (tmp_path / "journal.jsonl").stat().st_size
        apply_steps(store, 6, 9)
    with (tmp_path / "journal.jsonl").open("r+b") as file:
        file.truncate(end)
    with closing(LanceStore(tmp_path, HashEmbedder())) as store:
        apply_steps(store, 6, 12)
    assert_undisturbed(tmp_path, 12)


class LateFailure(EntryTable):
    """Does its first write, and says that it failed."""

    has_failed = False

    def write(self, entries: Sequence[MemoryEntry], vectors: Vectors, stale: Sequence[Key]) -> None:
        super().write(entries, vectors, stale)
        if not self.has_failed:
            self.has_failed = True
            raise BankUnavailable("the disk went away after the write")


def test_a_write_that_failed_after_it_was_done_leaves_no_row_twice(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    with closing(MirroredStore(tmp_path, embedder, lambda: LateFailure(tmp_path, embedder), rows_per_write=4)) as store:
        apply_steps(store, 0, 20)
    assert_undisturbed(tmp_path, 20)


def test_a_killed_build_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Between the journal's sync and the table's write, which 512 rows per write put off until closing."""
    acknowledged = apply_until_killed(tmp_path, rows_per_write=512, num_acknowledged=11)
    assert table_texts(tmp_path) == []
    continue_and_compare(tmp_path, acknowledged)


@pytest.mark.slow
@pytest.mark.parametrize("num_acknowledged", [2, 9, 30])
def test_a_build_killed_at_any_moment_goes_on_as_if_nothing_had_happened(tmp_path: Path, num_acknowledged: int) -> None:
    """A table write after every second row: the kill falls into any of journal append, sync, and table write."""
    continue_and_compare(tmp_path, apply_until_killed(tmp_path, rows_per_write=2, num_acknowledged=num_acknowledged))


def continue_and_compare(folder: Path, acknowledged: int) -> None:
    with closing(LanceStore(folder, HashEmbedder())) as store:
        turns = {record.source.turn_id for scope in store.scopes() for record in store.bank(scope).journal()}
        assert acknowledged <= len(turns) <= acknowledged + 50
        apply_steps(store, len(turns), len(turns) + 7)
    assert_undisturbed(folder, len(turns) + 7)


def apply_until_killed(folder: Path, rows_per_write: int, num_acknowledged: int) -> int:
    """Kill (SIGKILL) a process that applies steps without end, once it has reported so many; return that number."""
    program = (
        "import time; from pathlib import Path\n"
        "from memr1.bank.embedding import HashEmbedder\n"
        "from memr1.bank.lancedb_bank import LanceStore\n"
        "from tests.bank_histories import apply_step\n"
        f"store = LanceStore(Path({str(folder)!r}), HashEmbedder(), rows_per_write={rows_per_write})\n"
        "for step in range(10_000):\n"
        "    apply_step(store, step)\n"
        "    print(step, flush=True)\n"
        "    time.sleep(0.002)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for _ in range(num_acknowledged):
            assert process.stdout.readline(), "the process ended by itself"
        time.sleep(0.001 * num_acknowledged)
        process.kill()
    return num_acknowledged


def test_a_large_table_is_tidied_only_when_it_has_many_small_files(tmp_path: Path) -> None:
    scopes, facts = [f"c{number}" for number in range(10)], [f"fact {number}" for number in range(ROWS_PER_WRITE)]
    with closing(LanceStore(tmp_path, HashEmbedder(8))) as store:
        for scope in scopes:
            add_all(store, scope, facts)
    assert num_files(tmp_path) == len(scopes)
    with closing(LanceStore(tmp_path, HashEmbedder(8), rows_per_write=1)) as store:
        for number in range(3 * WRITES_PER_TIDY):
            add_all(store, "c0", [f"one more {number}"])
            assert num_files(tmp_path) <= 2 * len(scopes) + 2 * WRITES_PER_TIDY
    assert num_files(tmp_path) < 2 * len(scopes) + WRITES_PER_TIDY


def add_all(store: LanceStore, scope: str, texts: Sequence[str]) -> None:
    source = Source(turn_id="D1:1", speaker="Marta", time=datetime(2024, 5, 1), policy="test")
    store.bank(scope).apply([Operation(kind="ADD", text=text) for text in texts], source)


def num_files(folder: Path) -> int:
    stats = lancedb.connect(folder).open_table(TABLE_NAME).stats()
    return int(stats["fragment_stats"]["num_fragments"])
