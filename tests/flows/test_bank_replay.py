"""`memr1 bank replay` on a run directory, with the policy that needs no model."""

from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from memr1.bank.embedding import HashEmbedder
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.operation import Operation, Source
from memr1.config import load_config
from memr1.data.conversation import Conversation
from memr1.data.loading import load_dataset
from memr1.data.stored import read_dataset, write_dataset
from memr1.errors import CheckpointMissing
from memr1.records import write_json
from memr1.run_dir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose training bank heard two turns of its one training conversation, and kept nothing of the second."""
    sizes = ["data.num_train=1", "data.num_validation=1", "data.num_test=1"]
    config = load_config("quickstart", sizes)
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    write_json(run.config, config.model_dump(mode="json"))
    write_dataset(run, load_dataset(config.data, seed=0))
    heard = read_dataset(run).conversations[0]
    with closing(InMemoryStore(HashEmbedder(8), run.bank / "store")) as store:
        for number in (0, 1):
            apply_turn(store, heard, number)
    return run


def apply_turn(store: InMemoryStore, heard: Conversation, number: int) -> None:
    session, turn = heard.turns()[number]
    source = Source(turn_id=turn.id, speaker=turn.speaker, time=session.time, policy="hand")
    kept = [Operation(kind="ADD", text=f"{turn.speaker}: {turn.text}")] if number == 0 else []
    store.bank(heard.id).apply(kept, source)


def test_a_replay_under_always_add_shows_what_the_first_policy_left_out(run: RunDir, tmp_path: Path) -> None:
    words = [
        "bank",
        "replay",
        str(run.root),
        str(run.root),
        "--policy",
        "always-add",
        "--output",
        str(tmp_path / "new"),
    ]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    _, second = (turn for _, turn in read_dataset(run).conversations[0].turns()[:2])
    lines = result.stdout.splitlines()
    assert lines[0].endswith("2 turns, now under always_add:")
    assert lines[1].startswith("+ 2 ") and f"{second.speaker}: {second.text}" in lines[1]
    assert lines[2] == "0 only before, 1 only after, 0 changed, 1 equal"
    assert (tmp_path / "new" / "journal.jsonl").is_file()


def test_a_run_that_has_trained_nothing_says_which_policies_there_are(run: RunDir) -> None:
    with pytest.raises(CheckpointMissing, match="--policy untrained or always-add"):
        CliRunner().invoke(app, ["bank", "replay", str(run.root), str(run.root)], catch_exceptions=False)
