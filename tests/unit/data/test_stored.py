"""What one stage writes, the next reads back."""

from datetime import datetime
from pathlib import Path

import pytest

from memr1.data.conversation import Conversation, Dataset, Fact, Question, Session, Splits, Turn
from memr1.data.stored import read_dataset, read_identity, write_dataset
from memr1.errors import DatasetFormatError
from memr1.run_dir import RunDir

TURN = Turn(id="D1:1", speaker="Zoë", text="Line one\nline two \u2028 three", image_caption="a cat")
DATASET = Dataset(
    name="mine",
    sha256="ab" * 32,
    licence_notice="CC BY 4.0",
    conversations=(
        Conversation(
            id="c1",
            speakers=("Zoë",),
            sessions=(Session(id="session_1", time=datetime(2024, 3, 2, 9, 30), turns=(TURN,)),),
            facts=(Fact(speaker="Zoë", text="Zoë has a cat.", turn_id="D1:1"),),
        ),
    ),
    questions=(Question(id="q1", conversation_id="c1", text="Who?", answer="Zoë", category=1, evidence=("D1:1",)),),
    splits=Splits(train=(), validation=(), test=("c1",)),
)


def test_a_dataset_survives_writing_and_reading(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    identity = write_dataset(run, DATASET)
    assert read_dataset(run) == DATASET
    assert read_identity(run) == identity
    assert (identity.num_conversations, identity.num_turns, identity.num_questions) == (1, 1, 1)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with pytest.raises(DatasetFormatError, match=r"dataset\.json"):
        read_dataset(run)
    write_dataset(run, DATASET)
    run.splits.write_text('{"train": []', encoding="utf-8")
    with pytest.raises(DatasetFormatError, match=r"splits\.json"):
        read_dataset(run)
