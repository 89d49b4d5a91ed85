"""An evaluation's answers as a bank's page shows them."""

from pathlib import Path
from typing import Any

import pytest

from memr1.errors import EvaluationError
from memr1.evaluation.scores import ScoredAnswer, score_answer
from memr1.evaluation.viewing import read_system_answers, view_questions
from tests.builders import entry, question


def scored(system: str = "trained", answer: str = "Rome", **asked: Any) -> ScoredAnswer:
    return score_answer(
        system,
        question(**asked),
        answer,
        memories=["Ann lives in Rome", "gone"],
        num_retrieved=5,
        retrieved_turns=(),
        kept_turns=(),
    )


def write(path: Path, *answers: ScoredAnswer, end: str = "") -> Path:
    path.write_text("".join(item.model_dump_json() + "\n" for item in answers) + end, encoding="utf-8")
    return path


def test_a_question_shows_its_answer_and_the_entries_behind_it() -> None:
    asked, unasked, foreign = question(), question("q2"), question("q3", conversation_id="c2")
    entries = [entry("1", "Bob drives a Fiat"), entry("7", "Ann lives in Rome")]
    first, second = view_questions("c1", [asked, unasked, foreign], [scored()], entries, {4: "single-hop"})
    assert (first.category, first.gold, first.evidence) == ("4, single-hop", "Rome", ("D1:1",))
    assert first.answer is not None and (first.answer.is_right, first.answer.num_retrieved) == (True, 5)
    assert [memory.entry_ids for memory in first.answer.memories] == [("7",), ()]
    assert second.answer is None


def test_without_the_dataset_the_answers_tell_the_questions() -> None:
    (only,) = view_questions("c1", [], [scored(answer="Oslo"), scored(conversation_id="c2")], [], {})
    assert (only.text, only.category, only.evidence) == ("Where does Ann live?", "4", ())
    assert only.answer is not None and not only.answer.is_right


def test_answers_of_several_systems_need_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.jsonl", scored(), scored("warm_start", "Oslo"))
    assert [item.answer for item in read_system_answers(path, "warm_start")] == ["Oslo"]
    with pytest.raises(EvaluationError, match="name a system: it holds answers of trained, warm_start"):
        read_system_answers(path, None)
    with pytest.raises(EvaluationError, match="no answers of 'champion'"):
        read_system_answers(path, "champion")


def test_an_evaluation_that_goes_on_is_read_and_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.jsonl", scored(), end='{"system":"tra')
    assert len(read_system_answers(path, None)) == 1
    assert path.read_text(encoding="utf-8").endswith('{"system":"tra')
    with pytest.raises(EvaluationError, match="cannot read answers"):
        read_system_answers(tmp_path / "missing.jsonl", None)
