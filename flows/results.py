"""A run's results where people look: a table in the Prefect server, lines on the terminal, and the next command."""

import json
import logging
import shlex
from collections.abc import Iterator
from typing import Any

from prefect.artifacts import create_table_artifact

from memr1.console import render_table
from memr1.run_dir import RunDir

log = logging.getLogger(__name__)
ARTIFACT_KEY = "memr1-results"  # the server keeps one history of tables under it


def show_results(run: RunDir) -> None:
    """Publish the evaluation's overall table and log it."""
    from memr1.evaluation.rendering import describe_questions, overall_table
    from memr1.evaluation.report import read_report

    report = read_report(run.evaluation)
    header, rows = overall_table(report)
    create_table_artifact(
        table=[dict(zip(header, row, strict=True)) for row in rows],
        key=ARTIFACT_KEY,
        description=f"{run.root.name}: {report.dataset.name}, {describe_questions(report)}",
    )
    log.info("%s: %s\n%s", report.dataset.name, describe_questions(report), render_table(header, rows))


def next_commands(run: RunDir) -> list[str]:
    """What to do with a finished run."""
    question = _held_out_question(run)
    asked = f"{question['conversation_id']} {shlex.quote(question['text'])}"
    return [
        f"read the report:    {run.evaluation / 'report.md'}",
        f"ask the pair:       memr1 ask {run.root} {asked}",
        f"score another file: memr1 evaluate --run {run.root} --data FILE",
    ]


def _held_out_question(run: RunDir) -> dict[str, Any]:
    held_out = set(json.loads(run.splits.read_text(encoding="utf-8"))["test"])
    with run.questions.open(encoding="utf-8") as lines:
        questions: Iterator[dict[str, Any]] = map(json.loads, lines)
        return next(question for question in questions if question["conversation_id"] in held_out)
