"""The user's own conversations: what the format means, and how its mistakes are answered."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from memr1.data.source import Contents, SourceFile
from memr1.data.transcript import parse_transcript
from memr1.errors import DatasetFormatError

SESSION = {"time": "2024-03-02T09:30", "turns": [{"speaker": "Ana", "text": "I moved to Rome."}]}
QUESTION = {"text": "Where does Ana live?", "answer": "Rome", "evidence": ["D1:1"]}
MESSAGES = [
    {"role": "system", "content": "Be kind.", "time": "2024-03-02T09:00:00+01:00"},
    {"role": "user", "content": "I moved to Rome.", "time": "2024-03-02T09:30:00+01:00", "model": "x"},
    {"role": "assistant", "content": "Congratulations!"},
    {"role": "user", "content": "I moved to Oslo.", "time": "2024-03-05"},
]


def conversation(**more: Any) -> dict[str, Any]:
    return {"id": "c1", "sessions": [SESSION], "questions": [QUESTION], **more}


def parse(*lines: Any, name: str = "mine.jsonl") -> Contents:
    return parse_transcript(SourceFile(Path(name), "\n".join(json.dumps(line) for line in lines), "0"))


def test_turns_are_numbered_by_session_and_place() -> None:
    second = {"time": "2024-03-03", "turns": [{"speaker": "Ben", "text": "Hi."}, {"speaker": "Ana", "text": "Hi!"}]}
    parsed = parse(conversation(sessions=[SESSION, second])).conversations[0]
    assert [turn.id for _, turn in parsed.turns()] == ["D1:1", "D2:1", "D2:2"]
    assert parsed.speakers == ("Ana", "Ben")
    assert parsed.sessions[1].time == datetime(2024, 3, 3)


def test_given_ids_speakers_and_captions_are_kept() -> None:
    turn = {"id": "t9", "speaker": "Ana", "text": "Look.", "image_caption": "a cat"}
    session = {"id": "monday", "time": "2024-03-02", "turns": [turn]}
    parsed = parse(conversation(sessions=[session], speakers=["Ana", "Zoe"])).conversations[0]
    assert (parsed.sessions[0].id, parsed.speakers) == ("monday", ("Ana", "Zoe"))
    assert parsed.turns()[0][1].model_dump() == turn


def test_sessions_are_put_in_order_of_time_and_keep_their_turn_ids() -> None:
    earlier = {**SESSION, "time": "2023-01-01"}
    parsed = parse(conversation(sessions=[SESSION, earlier])).conversations[0]
    assert [turn.id for _, turn in parsed.turns()] == ["D2:1", "D1:1"]


def test_a_number_is_an_answer_and_ids_are_made_when_missing() -> None:
    questions = [{**QUESTION, "answer": 3}, {**QUESTION, "id": "mine", "category": 2}]
    first, second = parse(conversation(questions=questions)).questions
    assert (first.id, first.answer, first.category) == ("c1-q1", "3", 0)
    assert (second.id, second.category) == ("mine", 2)


def test_messages_are_cut_into_sessions_at_long_pauses() -> None:
    parsed = parse({"id": "chat", "messages": MESSAGES}).conversations[0]
    assert [(session.time, len(session.turns)) for session in parsed.sessions] == [
        (datetime(2024, 3, 2, 9, 0), 2),
        (datetime(2024, 3, 5), 1),
    ]
    assert parsed.speakers == ("user", "assistant")
    assert [turn.id for _, turn in parsed.turns()] == ["D1:1", "D1:2", "D2:1"]


def test_a_system_prompt_is_left_out_with_its_reason() -> None:
    rows = parse({"id": "chat", "messages": MESSAGES}).left_out
    assert [(row.kind, row.field, row.value) for row in rows] == [("turn", "role", '"Be kind."')]


def test_messages_may_stand_inside_a_dated_session_and_name_their_author() -> None:
    session = {"time": "2024-03-02", "messages": [{"role": "user", "name": "Ana", "content": "Hi."}]}
    assert parse(conversation(sessions=[session])).conversations[0].speakers == ("Ana",)


def test_a_bare_list_of_messages_is_a_conversation() -> None:
    assert parse(MESSAGES, MESSAGES).conversations[1].id == "mine-2"
    assert parse(MESSAGES, name="mine.json").conversations[0].id == "mine-1"


def test_a_json_file_may_hold_a_list_of_conversations() -> None:
    assert [item.id for item in parse([conversation(), conversation(id="c2")], name="mine.json").conversations] == [
        "c1",
        "c2",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": "c1"}, "either sessions or messages"),
        (conversation(messages=MESSAGES), "either sessions or messages"),
        (conversation(id=""), "id"),
        (conversation(tags=["x"]), "tags"),
        (conversation(sessions=[{**SESSION, "time": None}]), "conversation 'c1', session 1 (time) has no date"),
        (conversation(sessions=[{"turns": SESSION["turns"]}]), "session 1 (time) has no date"),
        (conversation(sessions=[{**SESSION, "time": "yesterday"}]), "'yesterday' is not a date"),
        (conversation(sessions=[{"time": "2024-03-02"}]), "either turns or messages"),
        (conversation(sessions=[{**SESSION, "turns": [{"speaker": "Ana", "text": 5}]}]), "sessions.0.turns.0.text"),
        (conversation(sessions={"a": 1}), "sessions"),
        (conversation(questions=[{"text": "Where?"}]), "questions.0.answer"),
        ({"id": "chat", "messages": MESSAGES[2:]}, "message 1 has no date"),
        ({"id": "chat", "messages": MESSAGES[:1]}, "no turn that anybody said"),
        ({"id": "chat", "messages": [{"role": "user", "content": None, "time": "2024-03-02"}]}, "messages.0.content"),
        ("hello", "mine.jsonl:1"),
        ([], "either sessions or messages"),
    ],
)
def test_a_mistake_is_answered_with_line_and_field(line: Any, said: str) -> None:
    with pytest.raises(DatasetFormatError) as refusal:
        parse(line)
    assert said in str(refusal.value)
    assert "mine.jsonl:1" in str(refusal.value)


def test_a_line_that_is_cut_off_is_named_by_its_number() -> None:
    text = json.dumps(conversation()) + "\n\n" + json.dumps(conversation(id="c2"))[:-9]
    with pytest.raises(DatasetFormatError, match=r"mine\.jsonl:3 is not valid JSON"):
        parse_transcript(SourceFile(Path("mine.jsonl"), text, "0"))


def test_a_line_separator_inside_a_text_does_not_end_its_line() -> None:
    session = {"time": "2024-03-02", "turns": [{"speaker": "Ana", "text": "one\u2028two"}]}
    line = json.dumps(conversation(sessions=[session]), ensure_ascii=False)
    contents = parse_transcript(SourceFile(Path("mine.jsonl"), line, "0"))
    assert contents.conversations[0].turns()[0][1].text == "one\u2028two"


def test_the_examples_in_the_documentation_are_read_as_described() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in page.split("```json\n")[1:]]
    sessions, messages = (parse(json.loads(block)) for block in blocks)
    (question,) = sessions.questions
    said = {turn.id: turn.text for _, turn in sessions.conversations[0].turns()}
    assert [said[turn_id] for turn_id in question.evidence] == ["I live in Rome now."]
    assert [len(session.turns) for session in messages.conversations[0].sessions] == [2, 1]
