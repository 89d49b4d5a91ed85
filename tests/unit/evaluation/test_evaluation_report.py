"""The report's files: what programs read, what people read."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from memr1.errors import EvaluationError
from memr1.evaluation.comparison import EvaluationReport, ScoredDataset, ServedVersion, compare_systems
from memr1.evaluation.report import category_names, read_report, read_report_answers, write_report
from memr1.evaluation.scores import ScoredAnswer, score_system

VOID_TAGS = {"meta", "br", "rect", "line", "circle"}


@pytest.fixture
def answers(make_answer) -> dict[str, list[ScoredAnswer]]:
    """Twelve questions about six conversations: the trained pair answers all but two, the warm start a third."""

    def answer_all(system: str, right: set[int]) -> list[ScoredAnswer]:
        return [
            make_answer(
                f"q{number}",
                system=system,
                conversation_id=f"c{number % 6}",
                category=1 + number % 2,
                answer="Rome" if number in right else "Oslo | <b>or</b>",
                evidence=("D1:1",),
                retrieved=("D1:1",) if number in right else (),
            )
            for number in range(12)
        ]

    return {"warm_start": answer_all("warm_start", {0, 1, 2, 3}), "trained": answer_all("trained", set(range(10)))}


@pytest.fixture
def report(answers, build_figures) -> EvaluationReport:
    return EvaluationReport(
        dataset=ScoredDataset(
            name="locomo",
            sha256="ab" * 32,
            split="test",
            num_conversations=6,
            num_questions=12,
            category_names={"1": "multi-hop"},
            licence_notice="CC BY-NC 4.0: do not sell <this>",
        ),
        systems={name: score_system(items, build_figures, 3.0) for name, items in answers.items()},
        differences=tuple(compare_systems(answers, seed=7)),
        champion=ServedVersion(model_name="memr1", version="3"),
        notes=("A tiny model.",),
    )


def test_report_json_holds_the_dataset_and_every_systems_figures(tmp_path: Path, report, answers) -> None:
    write_report(tmp_path, report, answers)
    written = json.loads((tmp_path / "report.json").read_text())
    assert {key: written["dataset"][key] for key in ("name", "sha256", "split", "num_questions")} == {
        "name": "locomo",
        "sha256": "ab" * 32,
        "split": "test",
        "num_questions": 12,
    }
    trained = written["systems"]["trained"]
    assert trained["exact_match"] == pytest.approx(10 / 12, abs=1e-6)
    assert {"f1", "bleu1", "num_questions", "evidence_recall"} <= trained.keys()
    assert set(trained["by_category"]) == {"1", "2"}
    assert {"f1", "bleu1", "exact_match", "num_questions"} <= trained["by_category"]["1"].keys()


def test_what_was_written_is_read_again(tmp_path: Path, report, answers) -> None:
    write_report(tmp_path, report, answers)
    assert read_report(tmp_path) == report
    assert read_report_answers(tmp_path) == answers
    assert not list(tmp_path.glob("*.partial"))


def test_the_trained_pair_stands_first_in_every_comparison(answers) -> None:
    first, second = compare_systems(answers, seed=7)
    assert [(item.a, item.b, item.metric) for item in (first, second)] == [
        ("trained", "warm_start", "exact_match"),
        ("trained", "warm_start", "f1"),
    ]
    assert first.difference == pytest.approx(0.5)
    assert first.unit == "conversation"


def test_systems_that_answered_different_questions_are_not_compared(answers) -> None:
    with pytest.raises(EvaluationError, match="did not answer the same questions"):
        compare_systems({**answers, "trained": answers["trained"][1:]}, seed=7)


def test_report_md_shows_figures_categories_notes_and_licence(tmp_path: Path, report, answers) -> None:
    write_report(tmp_path, report, answers)
    text = (tmp_path / "report.md").read_text()
    assert "| trained | 12 | 0.833 | 0.833 | 0.833 |" in text
    assert "| 1 | multi-hop | 6 |" in text
    assert "| 2 |  | 6 |" in text  # a category without a name
    assert "trained − warm_start | +0.500" in text
    assert "> A tiny model." in text
    assert "CC BY-NC 4.0" in text
    assert "LoCoMo F1" not in text  # no system has one here


def test_report_html_is_one_well_formed_file_without_links(tmp_path: Path, report, answers) -> None:
    write_report(tmp_path, report, answers)
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://", page)
    assert "<b>or</b>" not in page and "&lt;b&gt;or&lt;/b&gt;" in page  # answers are shown, never executed
    assert page.count("<svg") == 3
    open_tags: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in VOID_TAGS:
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in VOID_TAGS:
                assert open_tags.pop() == tag

    Balance().feed(page)
    assert open_tags == []


def test_a_missing_or_damaged_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"report\.json.*evaluate stage"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(EvaluationError, match=r"report\.json"):
        read_report(tmp_path)


def test_known_datasets_have_words_for_their_categories() -> None:
    assert category_names("locomo")[2] == "temporal"
    assert category_names("longmemeval")[7] == "abstention"
    assert category_names("synthetic/easy")[2] == "former value"
    assert category_names("transcript/mine") == {}
