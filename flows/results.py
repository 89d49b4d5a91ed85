"""A run's results where people look: a table in the Prefect server, lines on the terminal, and the next command."""

import json
import logging
from pathlib import Path
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
    conversation = _first_test_conversation(run.splits)
    return [
        f"read the report:    {run.evaluation / 'report.md'}",
        f'ask the pair:       memr1 ask {run.root} {conversation} "…"',
        f"score another file: memr1 evaluate --run {run.root} --data FILE",
    ]


def _first_test_conversation(path: Path) -> str:
    splits: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return str(splits["test"][0])
