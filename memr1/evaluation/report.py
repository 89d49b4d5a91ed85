"""The files of an evaluation, and the values in them.

answers.jsonl   every answer of every system, with its scores
report.json     the figures, for programs (`memr1.evaluation.comparison.EvaluationReport`)
report.md       the same for people · report.html the same with bars, one file that needs no network
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from memr1.data.conversation import Dataset
from memr1.data.longmemeval import ABSTENTION
from memr1.data.longmemeval import CATEGORIES as LONGMEMEVAL_CATEGORIES
from memr1.data.synthetic import CATEGORY_NAMES as SYNTHETIC_CATEGORIES
from memr1.errors import EvaluationError
from memr1.evaluation.comparison import EvaluationReport, ScoredDataset
from memr1.evaluation.rendering import render_markdown
from memr1.evaluation.rendering_html import render_html
from memr1.evaluation.scores import ScoredAnswer, group_by_system
from memr1.metrics import LOCOMO_CATEGORIES
from memr1.records import read_jsonl, write_json, write_jsonl, write_text

REPORT_NAME, ANSWERS_NAME = "report.json", "answers.jsonl"


def describe_dataset(dataset: Dataset, conversation_ids: Sequence[str], split: str) -> ScoredDataset:
    """What a report says about the questions on these conversations."""
    asked = [question for question in dataset.questions if question.conversation_id in set(conversation_ids)]
    categories = sorted({question.category for question in asked})
    names = category_names(dataset.name)
    return ScoredDataset(
        name=dataset.name,
        sha256=dataset.sha256,
        split=split,
        num_conversations=len(conversation_ids),
        num_questions=len(asked),
        category_names={str(number): names[number] for number in categories if number in names},
        licence_notice=dataset.licence_notice,
    )


def category_names(dataset_name: str) -> Mapping[int, str]:
    """A known dataset's words for its category integers; none for the user's own."""
    if dataset_name == "locomo":
        return LOCOMO_CATEGORIES
    if dataset_name == "longmemeval":
        return {number: name for name, number in LONGMEMEVAL_CATEGORIES.items()} | {ABSTENTION: "abstention"}
    return SYNTHETIC_CATEGORIES if dataset_name.startswith("synthetic") else {}


def write_report(folder: Path, report: EvaluationReport, answers: Mapping[str, Sequence[ScoredAnswer]]) -> None:
    """Write the four files, each atomically; report.json last."""
    write_jsonl(folder / ANSWERS_NAME, (answer for group in answers.values() for answer in group))
    write_text(folder / "report.md", render_markdown(report))
    write_text(folder / "report.html", render_html(report, answers))
    write_json(folder / REPORT_NAME, report.model_dump(mode="json"))


def read_report(folder: Path) -> EvaluationReport:
    """The report of an evaluation folder. Raises EvaluationError when it is missing or damaged."""
    path = folder / REPORT_NAME
    try:
        return EvaluationReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise EvaluationError(f"cannot read {path}: {error}. Run the evaluate stage again.") from error


def read_report_answers(folder: Path) -> Mapping[str, list[ScoredAnswer]]:
    """Every system's answers, by system. Raises DatasetFormatError when the file is missing or damaged."""
    return group_by_system(read_jsonl(folder / ANSWERS_NAME, ScoredAnswer))
