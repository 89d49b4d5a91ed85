"""A bank whose process is killed again and again is, in the end, the bank of one that was left in peace: to the byte.

tests/bank_deaths.py says at which moments the kills come.
"""

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memr1.bank.embedding import HashEmbedder
from memr1.bank.exchange import export_bank
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.lancedb_bank import EntryTable
from memr1.bank.mirrored import entry_digest
from tests.bank_deaths import (
    FORKS,
    NUM_STEPS,
    build_all,
    build_on_lancedb,
    count_turns,
    export_to,
    import_from,
    run_to_its_end_or_death,
    write_journal,
)
from tests.bank_histories import apply_steps

pytestmark = pytest.mark.slow

NUM_KILLS = 100  # of each of two kinds of work
MOST_MOMENTS = 40  # that one process lives to see: several kills for every build, and now and then none
SEED = 20_240_501


def test_builds_killed_at_a_hundred_moments_give_the_bank_of_an_undisturbed_one(tmp_path: Path) -> None:
    embedder = HashEmbedder(32)
    with closing(InMemoryStore(embedder, tmp_path / "peace")) as peace:
        build_all(peace, embedder)
    expected = export_bytes(tmp_path / "peace")
    chance, kills = random.Random(SEED), 0
    builds: list[int] = []
    while kills < NUM_KILLS:
        folder = tmp_path / f"build{len(builds)}"
        sizes = chance.choice((1, 6, 512)), chance.choice((1, 2, 256))  # rows per write, conversations at once
        builds.append(count_deaths(build_on_lancedb, folder, chance, NUM_KILLS - kills, *sizes))
        kills += builds[-1]
        assert export_bytes(folder) == expected
        assert_table_is_in_line(folder)
    print(f"\n{kills} kills in {len(builds)} builds on lancedb: {builds}")


def test_journals_whose_writer_is_killed_at_a_hundred_moments_are_those_of_an_undisturbed_one(tmp_path: Path) -> None:
    with closing(InMemoryStore(HashEmbedder(8), tmp_path / "peace")) as peace:
        apply_steps(peace, 0, NUM_STEPS)
    expected = export_bytes(tmp_path / "peace")
    chance, kills = random.Random(SEED + 1), 0
    journals: list[int] = []
    while kills < NUM_KILLS:
        folder = tmp_path / f"journal{len(journals)}"
        journals.append(count_deaths(write_journal, folder, chance, NUM_KILLS - kills))
        kills += journals[-1]
        assert export_bytes(folder) == expected
        assert (folder / "journal.jsonl").read_bytes() == (tmp_path / "peace" / "journal.jsonl").read_bytes()
    print(f"\n{kills} kills in {len(journals)} journals: {journals}")


def test_an_export_killed_at_any_moment_leaves_no_half_file_and_can_be_repeated(tmp_path: Path) -> None:
    with closing(InMemoryStore(HashEmbedder(8), tmp_path / "bank")) as store:
        apply_steps(store, 0, NUM_STEPS)
    expected = export_bytes(tmp_path / "bank")
    moment, file = 1, tmp_path / "out" / "bank.jsonl"
    while not run_to_its_end_or_death(export_to, tmp_path / "bank", file, moment):
        assert not file.exists() or file.read_bytes() == expected
        file.unlink(missing_ok=True)
        moment += 1
    assert file.read_bytes() == expected
    assert moment >= 3


def test_an_import_killed_at_any_moment_is_finished_by_repeating_it(tmp_path: Path) -> None:
    with closing(InMemoryStore(HashEmbedder(8), tmp_path / "bank")) as store:
        apply_steps(store, 0, NUM_STEPS)
    export_bank(tmp_path / "bank", tmp_path / "bank.jsonl")
    moment, done = 1, False
    while not done:
        folder = tmp_path / f"copy{moment}"
        done = run_to_its_end_or_death(import_from, tmp_path / "bank.jsonl", folder, moment)
        assert run_to_its_end_or_death(import_from, tmp_path / "bank.jsonl", folder, 0)
        assert export_bytes(folder) == (tmp_path / "bank.jsonl").read_bytes()
        moment += 1
    assert moment >= 4


def count_deaths(work: Callable[..., None], folder: Path, chance: random.Random, at_most: int, *arguments: Any) -> int:
    """Start `work` until it comes to its end; the number of times that it was killed. What it promised is there."""
    promised = FORKS.Value("i", 0, lock=False)
    num_deaths = 0
    while True:
        num_moments = chance.randint(1, MOST_MOMENTS) if num_deaths < at_most else 0
        ended = run_to_its_end_or_death(work, folder, chance.getrandbits(32), num_moments, promised, *arguments)
        assert count_turns(folder) >= promised.value
        if ended:
            return num_deaths
        num_deaths += 1


def export_bytes(folder: Path) -> bytes:
    file = folder.with_suffix(".jsonl")
    export_bank(folder, file)
    return file.read_bytes()


def assert_table_is_in_line(folder: Path) -> None:
    with closing(InMemoryStore(HashEmbedder(32), folder)) as store:
        entries = [entry for scope in store.scopes() for entry in store.bank(scope).entries()]
    table = EntryTable(folder, HashEmbedder(32))
    assert table.take_digests() == {(entry.scope, entry.id): entry_digest(entry) for entry in entries}
