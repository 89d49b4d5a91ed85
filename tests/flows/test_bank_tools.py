"""`memr1 bank` on a real run directory's bank: what is printed, and what the files hold afterwards."""

from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.bank_tools import parse_point
from flows.cli import app
from memr1.bank.embedding import HashEmbedder
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.operation import Operation, Source
from memr1.errors import ConfigError


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """Marta moves from Lisbon (1) to Rome (2); an output that nobody can read (3)."""
    store = InMemoryStore(HashEmbedder(8), tmp_path / "bank")
    held = store.bank("c1")
    source = Source(turn_id="D1:1", speaker="Marta", time=datetime(2024, 5, 1, 9), policy="tiny")
    held.apply([Operation(kind="ADD", text="lives in Lisbon")], source)
    later = source.model_copy(update={"turn_id": "D2:1", "time": datetime(2024, 5, 2, 9)})
    held.apply([Operation(kind="UPDATE", entry_id="1", text="lives in Rome")], later)
    held.apply([], later.model_copy(update={"turn_id": "D2:2", "failure": "garbage"}))
    store.close()
    return tmp_path / "bank"


def memr1(*words: object) -> str:
    result = CliRunner().invoke(app, ["bank", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_log_tells_turn_policy_and_words(bank: Path) -> None:
    lines = memr1("log", bank).splitlines()
    assert lines[0] == "1  2024-05-01 09:00  D1:1  Marta  [tiny]  ADD 1: lives in Lisbon"
    assert lines[1].endswith("UPDATE 1: lives in Lisbon → lives in Rome")
    assert lines[2].endswith("unreadable output: 'garbage'")
    assert len(memr1("log", bank, "--entry", "1").splitlines()) == 2


def test_the_past_is_shown_compared_and_restored(bank: Path) -> None:
    assert "lives in Lisbon" in memr1("show", bank, "--at", "2024-05-01")
    difference = memr1("diff", bank, "--from", "1").splitlines()
    assert difference[0].startswith("~ 1  2024-05-01 09:00  Marta: lives in Lisbon")
    assert difference[-1] == "0 only before, 0 only after, 1 changed, 0 equal"
    assert "UPDATE 1: lives in Rome → lives in Lisbon" in memr1("restore", bank, "--to", "1")
    assert memr1("show", bank) == "1  2024-05-01 09:00  Marta: lives in Lisbon  (turns D1:1)\n"
    assert "lives in Rome" in memr1("show", bank, "--at", "3")


def test_a_bank_travels_and_is_equal_afterwards(bank: Path, tmp_path: Path) -> None:
    memr1("export", bank, tmp_path / "x.jsonl")
    memr1("import", tmp_path / "x.jsonl", tmp_path / "copy")
    assert memr1("diff", bank, tmp_path / "copy") == "0 only before, 0 only after, 0 changed, 1 equal\n"
    head, row = memr1("stats", tmp_path / "copy").splitlines()
    assert head.split() == "scope records turns entries ADD UPDATE DELETE NOOP unreadable policies".split()
    assert row.split() == ["c1", "3", "3", "1", "1", "1", "0", "0", "1", "tiny"]


def test_a_point_is_a_number_a_time_or_a_whole_day() -> None:
    assert parse_point("12") == 12
    assert parse_point("2024-05-01T18:30") == datetime(2024, 5, 1, 18, 30)
    assert parse_point("2024-05-01") == datetime(2024, 5, 1, 23, 59, 59, 999_999)
    with pytest.raises(ConfigError, match="'soon'"):
        parse_point("soon")
