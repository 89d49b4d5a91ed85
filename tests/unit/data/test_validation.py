"""The gate: what each suite refuses, what it tolerates, and what it leaves behind."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from memr1.config import LocomoData
from memr1.data import validation
from memr1.data.conversation import Conversation, Dataset, Fact, Question, RejectedRow, Session, Splits, Turn
from memr1.data.loading import load_dataset
from memr1.data.rows import flatten_row, question_rows, turn_rows
from memr1.data.validation import ValidationSummary, expectations_folder, validate_dataset, validate_rows
from memr1.errors import ConfigError, ExpectationsFailed
from memr1.records import read_jsonl
from memr1.run_dir import RunDir

START = datetime(2024, 3, 2)


def turns(num: int, session: int = 1, **first: Any) -> tuple[Turn, ...]:
    made = [Turn(id=f"D{session}:{number}", speaker="Ana", text=f"Line {number}.") for number in range(1, num + 1)]
    return (made[0].model_copy(update=first), *made[1:])


def conversation(name: str = "c1", sessions: tuple[tuple[Turn, ...], ...] = (), **more: Any) -> Conversation:
    dated = (
        Session(id=f"session_{number}", time=START + timedelta(days=number), turns=said)
        for number, said in enumerate(sessions or (turns(3),), 1)
    )
    return Conversation(**{"id": name, "speakers": ("Ana", "Ben"), "sessions": tuple(dated), **more})


def question(number: int = 1, **more: Any) -> Question:
    row = {"id": f"q{number}", "conversation_id": "c1", "text": "Where?", "answer": "Rome", "category": 1}
    return Question(**{**row, "evidence": ("D1:1",), **more})


def dataset(*conversations: Conversation, questions: tuple[Question, ...] = (), **more: Any) -> Dataset:
    held = conversations or (conversation(),)
    splits = Splits(train=tuple(item.id for item in held), validation=(), test=())
    fields = {"name": "mine", "sha256": "0", "questions": questions or (question(),), "splits": splits}
    return Dataset(conversations=held, **{**fields, **more})


def refusal(broken: Dataset, folder: Path) -> str:
    with pytest.raises(ExpectationsFailed) as failure:
        validate_dataset(broken, RunDir(folder))
    return str(failure.value)


def test_a_sound_dataset_passes_unchanged_and_is_documented(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    sound = dataset()
    checked, summary = validate_dataset(sound, run)
    assert checked == sound
    assert summary.num_rejected == 0
    assert [(suite.suite, suite.num_rows, suite.passed) for suite in summary.suites] == [
        ("turns", 3, True),
        ("questions", 1, True),
    ]
    written = (run.data / "validation.json").read_text(encoding="utf-8")
    assert ValidationSummary.model_validate_json(written) == summary
    assert (run.data / "rejected.jsonl").read_text(encoding="utf-8") == ""
    assert "turns" in (run.data / "data_docs" / "index.html").read_text(encoding="utf-8")


def backwards(talk: Conversation) -> Conversation:
    return talk.model_copy(update={"sessions": talk.sessions[::-1]})


FLAWED_TURNS = dataset(
    conversation("repeats", (turns(2, id="D1:2"),)),
    conversation("nameless", (turns(2, id=""),)),
    conversation("anonymous", (turns(2, speaker=" "),)),
    conversation("stranger", (turns(2, speaker="Zoe"),)),
    conversation("mute", (turns(2, text="\n"),)),
    conversation("endless", (turns(2, text="x" * 20_001),)),
    conversation("ancient").model_copy(update={"sessions": (Session(id="s", time=datetime(1, 1, 1), turns=turns(1)),)}),
    backwards(conversation("backwards", (turns(1), turns(1, session=2)))),
    questions=(question(conversation_id="mute"),),
)
FLAWED_QUESTIONS = dataset(
    questions=(
        question(1),
        question(1),
        question(2, conversation_id="c9", evidence=()),
        question(3, text=" "),
        question(4, answer=""),
        question(5, answer="x" * 1_001),
        question(6, category=-1),
        question(7, evidence=("D1:1", "D9:9", "D8:8")),
    ),
)


@pytest.fixture(scope="module")
def turn_refusal(tmp_path_factory: pytest.TempPathFactory) -> str:
    return refusal(FLAWED_TURNS, tmp_path_factory.mktemp("turns"))


@pytest.fixture(scope="module")
def question_refusal(tmp_path_factory: pytest.TempPathFactory) -> str:
    return refusal(FLAWED_QUESTIONS, tmp_path_factory.mktemp("questions"))


@pytest.mark.parametrize(
    "said",
    [
        "  repeats D1:2: conversation_id, turn_id = 'repeats, D1:2'",
        "  nameless : turn_id = ''",
        "  anonymous D1:1: speaker = ' '",
        "  stranger D1:1: unknown_speaker = 'Zoe'",
        r"  mute D1:1: text = '\n'",
        "  endless D1:1: text = 'xxx",
        "  ancient D1:1: year = '1'",
        "  backwards D1:1: seconds_since_last_session = '-86400.0'",
        "expectations/turns.json refused text: a turn must say something (1 of 15 rows are not, 1% tolerated)",
    ],
)
def test_flawed_turns_fail_the_gate_by_id_field_and_value(said: str, turn_refusal: str) -> None:
    assert said in turn_refusal


@pytest.mark.parametrize(
    "said",
    [
        "  q1: id = 'q1'",
        "  q2: unknown_conversation = 'c9'",
        "  q2: split = ''",
        "  q3: text = ' '",
        "  q4: answer = ''",
        "  q5: answer = 'xxx",
        "  q6: category = '-1'",
        "  q7: unknown_evidence = 'D9:9, D8:8'",
    ],
)
def test_flawed_questions_fail_the_gate_by_id_field_and_value(said: str, question_refusal: str) -> None:
    assert said in question_refusal


def test_no_turns_and_no_questions_fail_the_gate_together(tmp_path: Path) -> None:
    silent = conversation().model_copy(update={"sessions": ()})
    message = refusal(dataset(silent).model_copy(update={"questions": ()}), tmp_path)
    assert "at least one turn (found 0)" in message
    assert "at least one question: nothing could be trained or scored (found 0)" in message
    assert str(tmp_path / "1_data" / "validation.json") in message


def test_training_questions_without_any_evidence_fail_the_gate(tmp_path: Path) -> None:
    questions = (question(1, evidence=()), question(2, evidence=()))
    assert "q2: num_evidence = '0'" in refusal(dataset(questions=questions), tmp_path)


def test_locomo_has_its_own_categories(tmp_path: Path) -> None:
    assert "1 to 4" in refusal(dataset(questions=(question(category=5),), name="locomo"), tmp_path)
    validate_dataset(dataset(questions=(question(category=5),)), RunDir(tmp_path))


def test_a_failed_gate_leaves_its_findings_but_no_dataset(tmp_path: Path) -> None:
    refusal(dataset(questions=(question(answer=""),)), tmp_path)
    written = {path.name for path in (tmp_path / "1_data").iterdir()}
    assert written == {"validation.json", "data_docs"}
    findings = json.loads((tmp_path / "1_data" / "validation.json").read_text(encoding="utf-8"))
    assert [suite["passed"] for suite in findings["suites"]] == [True, False]


def test_only_the_first_rows_are_named(tmp_path: Path) -> None:
    message = refusal(dataset(questions=tuple(question(number, answer="") for number in range(30))), tmp_path)
    assert message.count("answer = ''") == 10
    assert "and 20 more" in message


def test_a_rare_flaw_is_taken_out_and_kept_with_its_reason(tmp_path: Path) -> None:
    said = turns(200)
    mute = said[100].model_copy(update={"text": " "})
    talk = conversation(
        sessions=((*said[:100], mute, *said[101:]),),
        facts=(Fact(speaker="Ana", text="Ana.", turn_id="D1:101"), Fact(speaker="Ana", text="Hm.", turn_id="D1:1")),
    )
    asked = (*[question(number) for number in range(199)], question(199, evidence=("D9:9",)))
    earlier = RejectedRow(kind="session", id="c1 session_2", field="turns", value="", reason="no turns")
    checked, summary = validate_dataset(dataset(talk, questions=asked, left_out=(earlier,)), RunDir(tmp_path))
    assert [turn.id for _, turn in checked.conversations[0].turns()] == [turn.id for turn in said if turn != said[100]]
    assert [fact.turn_id for fact in checked.conversations[0].facts] == ["D1:1"]
    assert checked.questions == asked[:-1]
    rejected = list(read_jsonl(tmp_path / "1_data" / "rejected.jsonl", RejectedRow))
    assert [(row.kind, row.id, row.field, row.value) for row in rejected] == [
        ("session", "c1 session_2", "turns", ""),
        ("turn", "c1 D1:101", "text", " "),
        ("question", "q199", "unknown_evidence", "D9:9"),
        ("fact", "c1", "turn_id", "D1:101"),
    ]
    assert checked.left_out == tuple(rejected)
    assert summary.num_rejected == 3


def test_a_question_whose_turn_was_rejected_is_judged_without_it(tmp_path: Path) -> None:
    said = turns(200)
    talk = conversation(sessions=((said[0].model_copy(update={"text": ""}), *said[1:]),))
    assert "unknown_evidence = 'D1:1'" in refusal(dataset(talk), tmp_path)


def entry(number: int = 1, **more: Any) -> dict[str, Any]:
    row = {"id": str(number), "scope": "c1", "speaker": "Ana", "text": "Ana lives in Rome.", "time": "2024-03-02"}
    return {**row, "turn_ids": ["D1:1"], **more}


def refused_rows(suite: str, rows: list[dict[str, Any]], folder: Path) -> str:
    with pytest.raises(ExpectationsFailed) as failure:
        validate_rows(suite, rows, folder / "validation.json")
    return str(failure.value)


def test_flawed_memory_entries_fail_the_gate(tmp_path: Path) -> None:
    rows = [
        entry(1),
        entry(1),
        entry(2, scope=""),
        entry(3, speaker=" "),
        entry(4, text=" "),
        entry(5, text="x" * 2_001),
        entry(6, time=None),
        entry(7, turn_ids=[]),
    ]
    message = refused_rows("memory_entries", rows, tmp_path)
    for said in (
        "  c1 1: scope, id = 'c1, 1'",
        "   2: scope = ''",
        "  c1 3: speaker = ' '",
        "  c1 4: text = ' '",
        "  c1 5: text = 'xxx",
        "  c1 6: time = 'None'",
        "  c1 7: num_turn_ids = '0'",
    ):
        assert said in message
    assert "the bank must hold something" in refused_rows("memory_entries", [], tmp_path)


def test_sound_memory_entries_pass_and_the_same_id_may_stand_in_two_scopes(tmp_path: Path) -> None:
    rows = [entry(1), entry(2), entry(1, scope="c2")]
    summary = validate_rows("memory_entries.json", rows, tmp_path / "validation.json")
    assert summary.suites[0].passed
    assert (tmp_path / "validation.json").exists()


def test_flawed_training_examples_fail_the_gate(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "x"}, {"id": "a", "prompt": ""}, {"id": "b", "prompt": "x" * 60_001}]
    message = refused_rows("training_examples", rows, tmp_path)
    assert "  a: id = 'a'" in message
    assert "  a: prompt = ''" in message
    assert "  b: prompt = 'xxx" in message
    assert "at least one training example" in refused_rows("training_examples", [], tmp_path)


def test_rows_without_a_column_that_the_suite_asks_for_are_a_mistake_of_the_suite(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"asks for \['prompt'\]"):
        validate_rows("training_examples", [{"id": "a"}], tmp_path / "validation.json")


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        ({"type": "expect_wonders", "kwargs": {}, "meta": {"reason": "x"}}, r"\['expect_wonders'\]"),
        ({"type": "expect_column_values_to_be_null", "kwargs": {}, "meta": {"reason": "x"}}, "column"),
        ({"type": "expect_column_values_to_be_null", "kwargs": {"column": "id"}}, "meta"),
        ({"type": "expect_column_values_to_be_null", "kwargs": {"column": "id", "mostly": 7}, "meta": {}}, "mostly"),
    ],
)
def test_a_suite_that_was_edited_wrongly_is_named(
    expectation: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = {"name": "mine", "meta": {"id_columns": ["id"]}, "expectations": [expectation]}
    (tmp_path / "mine.json").write_text(json.dumps(suite), encoding="utf-8")
    monkeypatch.setattr(validation, "expectations_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match=said):
        validate_rows("mine", [{"id": "a"}], tmp_path / "out.json")


def test_every_suite_names_its_rows_and_gives_every_expectation_a_reason() -> None:
    suites = sorted(expectations_folder().glob("*.json"))
    assert [path.stem for path in suites] == ["memory_entries", "questions", "training_examples", "turns"]
    for path in suites:
        suite = json.loads(path.read_text(encoding="utf-8"))
        assert suite["name"] == path.stem
        assert suite["meta"]["id_columns"]
        assert all(item["meta"]["reason"] for item in suite["expectations"])


def test_lists_are_flattened_to_text_and_length() -> None:
    assert flatten_row({"id": 1, "turns": ["a", "b"]}) == {"id": 1, "turns": "a, b", "num_turns": 2}


def test_rows_keep_the_order_of_the_dataset() -> None:
    held = dataset(conversation("c1", (turns(2), turns(1, session=2))), conversation("c2"))
    assert [row["turn_id"] for row in turn_rows(held)] == ["D1:1", "D1:2", "D2:1", "D1:1", "D1:2", "D1:3"]
    assert [row["seconds_since_last_session"] for row in turn_rows(held)] == [0, 0, 86400, 0, 0, 0]
    assert [row["split"] for row in question_rows(held)] == ["train"]


def test_the_real_locomo_file_passes_whole(shared_file: Callable[[str], Path], tmp_path: Path) -> None:
    loaded = load_dataset(LocomoData(kind="locomo", path=shared_file("locomo10.json")), seed=7)
    checked, summary = validate_dataset(loaded, RunDir(tmp_path))
    assert checked == loaded
    assert summary.num_rejected == 0
    kept = [row.kind for row in read_jsonl(tmp_path / "1_data" / "rejected.jsonl", RejectedRow)]
    assert (kept.count("question"), kept.count("session"), kept.count("evidence")) == (446, 16, 3)
