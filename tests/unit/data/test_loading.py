"""Files that can be read, files that cannot, and what is recognised without being told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memr1.config import LocomoData, SyntheticData, TranscriptData
from memr1.data.loading import load_dataset, load_dataset_file
from memr1.errors import DatasetFormatError


def line(name: str, **more: Any) -> dict[str, Any]:
    session = {"time": "2024-03-02", "turns": [{"speaker": "Ana", "text": f"I am {name}."}]}
    return {"id": name, "sessions": [session], "questions": [{"text": "Who?", "answer": name}], **more}


def write(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(json.dumps(item) for item in lines), encoding="utf-8")
    return path


def test_a_transcript_is_loaded_split_and_digested(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", *[line(f"c{number}") for number in range(3)])
    dataset = load_dataset(TranscriptData(kind="transcript", path=path), seed=7)
    assert dataset.name == "transcript/mine"
    assert len(dataset.sha256) == 64
    assert dataset.licence_notice == ""
    parts = (dataset.splits.train, dataset.splits.validation, dataset.splits.test)
    assert [len(part) for part in parts] == [1, 1, 1]


def test_the_synthetic_world_needs_no_file() -> None:
    dataset = load_dataset(SyntheticData(num_train=2, num_validation=1, num_test=1), seed=7)
    assert len(dataset.splits.train) == 2
    assert dataset.questions


def test_a_foreign_transcript_is_held_out_completely(tmp_path: Path) -> None:
    dataset = load_dataset_file(write(tmp_path / "mine.jsonl", line("c1"), line("c2")))
    assert (dataset.splits.train, dataset.splits.test) == ((), ("c1", "c2"))


def test_a_file_of_locomos_form_is_recognised_and_claims_no_licence(tmp_path: Path) -> None:
    turns = [{"dia_id": "D1:1", "speaker": "Ana", "text": "Hi."}]
    talk = {"speaker_a": "Ana", "speaker_b": "Ben", "session_1": turns, "session_1_date_time": "1:56 pm on 8 May, 2023"}
    qa = [{"question": "Who?", "answer": "Ana", "category": 4, "evidence": ["D1:1"]}]
    dataset = load_dataset_file(write(tmp_path / "own.json", [{"sample_id": "x", "conversation": talk, "qa": qa}]))
    assert (dataset.name, dataset.splits.test, dataset.licence_notice) == ("locomo", ("x",), "")


def test_a_bom_is_not_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(line("c1")).encode())
    assert load_dataset_file(path).conversations[0].id == "c1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b'{"id": "caf\xe9"}', "is not UTF-8: byte 0xe9 at offset 11"),
        (b'{"id": "c1", "sess', "is not valid JSON"),
        (b"[" * 200_000, "nested too deep"),
    ],
)
@pytest.mark.parametrize("kind", ["locomo", "transcript"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, kind: str, content: bytes, said: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    config = LocomoData(kind="locomo", path=path) if kind == "locomo" else TranscriptData(kind="transcript", path=path)
    with pytest.raises(DatasetFormatError) as refusal:
        load_dataset(config, seed=7)
    assert said in str(refusal.value)
    assert "broken.jsonl" in str(refusal.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="No such file"):
        load_dataset_file(tmp_path / "none.jsonl")
    with pytest.raises(DatasetFormatError, match="Is a directory"):
        load_dataset_file(tmp_path)


def test_a_conversation_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="'c1' stands more than once"):
        load_dataset_file(write(tmp_path / "mine.jsonl", line("c1"), line("c2"), line("c1")))


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="has no questions"):
        load_dataset_file(write(tmp_path / "mine.jsonl", line("c1", questions=[])))


def test_a_longmemeval_record_is_recognised_and_read_whole(shared_file: Callable[[str], Path]) -> None:
    dataset = load_dataset_file(shared_file("longmemeval_s_single_item.json"))
    (conversation,), (question,) = dataset.conversations, dataset.questions
    assert dataset.name == "longmemeval"
    assert (len(conversation.sessions), len(conversation.turns())) == (53, 550)
    assert [session.time for session in conversation.sessions] == sorted(item.time for item in conversation.sessions)
    assert (question.answer, question.category) == ("Business Administration", 1)
    said = {turn.id: turn.text for _, turn in conversation.turns()}
    assert any("Business Administration" in said[turn_id] for turn_id in question.evidence)


def test_a_longmemeval_session_without_a_date_is_refused(tmp_path: Path) -> None:
    record = {
        "question_id": "q1_abs",
        "question_type": "multi-session",
        "question": "Where?",
        "answer": "nowhere",
        "question_date": "2023/05/30 (Tue) 23:40",
        "haystack_dates": ["2023/05/20 (Sat) 02:21"],
        "haystack_sessions": [[{"role": "user", "content": "Hi."}]],
    }
    assert load_dataset_file(write(tmp_path / "lme.json", [record])).questions[0].category == 7
    record["haystack_dates"] = []
    with pytest.raises(DatasetFormatError, match="every session needs one date"):
        load_dataset_file(write(tmp_path / "lme.json", [record]))
