"""The gate between stages: Great Expectations suites (expectations/*.json) over what crosses it. The only door to GX.

A flawed row is *tolerated* while no more than the suite's `mostly` allows are flawed: it is taken out and kept in
rejected.jsonl with its reason (or kept in place, where the suite says "flawed_rows": "kept"). Otherwise the gate fails
with the rows that failed. Either way validation.json and, for the dataset, Data Docs say what was looked at.

Great Expectations takes seconds to import and does so at the first validation.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memr1.data.conversation import Dataset, RejectedRow
from memr1.data.rows import Row, flatten_row, question_rows, remove_questions, remove_turns, turn_rows
from memr1.errors import ConfigError, ExpectationsFailed
from memr1.records import Record, write_json, write_jsonl
from memr1.run_dir import RunDir

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

logger = logging.getLogger(__name__)

MAX_ROWS_NAMED = 10
MAX_VALUE_LENGTH = 200


class ExpectationMeta(Record):
    """What memr1 adds to an expectation: the words for a flawed row, and what becomes of a tolerated one."""

    reason: str
    flawed_rows: Literal["removed", "kept"] = "removed"


class FlawedRow(Record):
    """One row that an expectation did not like."""

    place: int  # number of the row, from 0
    id: str
    field: str
    value: str


class CheckResult(Record):
    """One expectation, evaluated."""

    expectation: str
    field: str
    mostly: float  # share of the rows that must be sound
    meta: ExpectationMeta
    passed: bool
    observed: str  # for expectations about the whole table
    flawed: tuple[FlawedRow, ...]


class SuiteResult(Record):
    """One suite, evaluated over the rows of one artefact."""

    suite: str
    num_rows: int
    passed: bool
    checks: tuple[CheckResult, ...]


class ValidationSummary(Record):
    """validation.json: every suite of a stage, and how many rows were taken out."""

    suites: tuple[SuiteResult, ...]
    num_rejected: int


def validate_dataset(dataset: Dataset, run: RunDir) -> tuple[Dataset, ValidationSummary]:
    """The dataset without its tolerated flaws. Writes validation.json, rejected.jsonl and data_docs/ in 1_data.

    Raises ExpectationsFailed with the rows (id, field, value) when a suite refuses the turns or the questions;
    validation.json and data_docs/ are written then too, so that there is something to look at.
    """
    context = _build_context(run.data / "data_docs")
    turns = _run_suite(context, "turns", turn_rows(dataset))
    sound, lost_facts = remove_turns(dataset, _rejected_places(turns))
    questions = _run_suite(context, "questions", question_rows(sound))
    sound = remove_questions(sound, _rejected_places(questions))
    context.build_data_docs()
    rows = [*_rejected_rows("turn", turns), *_rejected_rows("question", questions), *lost_facts]
    summary = _conclude((turns, questions), len(rows), run.data / "validation.json")
    rejected = (*dataset.left_out, *rows)
    write_jsonl(run.data / "rejected.jsonl", rejected)
    if rows:
        logger.warning("%d row(s) rejected, see %s", len(rows), run.data / "rejected.jsonl")
    return sound.model_copy(update={"left_out": rejected}), summary


def validate_rows(suite: str, rows: Sequence[Row], write_to: Path) -> ValidationSummary:
    """Check the rows of a later stage's artefact; write the summary to `write_to` (JSON). Tolerated rows stay.

    A list in a row is checked as its length, under `num_<name>`. Raises ExpectationsFailed with the rows.
    """
    result = _run_suite(_build_context(None), suite.removesuffix(".json"), [flatten_row(row) for row in rows])
    return _conclude((result,), 0, write_to)


def expectations_folder() -> Path:
    """The suites of this checkout. They are settings of an installation, so they are not inside the package."""
    folder = Path(__file__).parents[2] / "expectations"
    if not folder.is_dir():
        raise ConfigError(f"no suites in {folder}: run memr1 from a checkout (`pip install -e .`), which holds them.")
    return folder


def _conclude(results: tuple[SuiteResult, ...], num_rejected: int, write_to: Path) -> ValidationSummary:
    """Write the summary, then raise ExpectationsFailed if a suite did not pass."""
    summary = ValidationSummary(suites=results, num_rejected=num_rejected)
    write_json(write_to, summary.model_dump(mode="json"))
    failures = [
        line for result in results for check in result.checks if not check.passed for line in _explain(result, check)
    ]
    if failures:
        raise ExpectationsFailed(
            "\n".join([*failures, f"Correct these rows and run again. Everything that was checked: {write_to}"])
        )
    return summary


def _explain(result: SuiteResult, check: CheckResult) -> Iterator[str]:
    """A failed expectation in words, then the first rows that failed it."""
    share = f"{len(check.flawed)} of {result.num_rows} rows are not" if check.flawed else f"found {check.observed}"
    tolerated = f", {1 - check.mostly:.0%} tolerated" if check.mostly < 1 else ""
    yield f"expectations/{result.suite}.json refused {check.field}: {check.meta.reason} ({share}{tolerated})"
    for row in check.flawed[:MAX_ROWS_NAMED]:
        yield f"  {row.id}: {row.field} = {row.value!r}"
    if len(check.flawed) > MAX_ROWS_NAMED:
        yield f"  and {len(check.flawed) - MAX_ROWS_NAMED} more"


def _rejected_places(result: SuiteResult) -> set[int]:
    """Numbers of the rows that a passed expectation tolerates and takes out."""
    return {row.place for check in result.checks if _removes(check) for row in check.flawed}


def _rejected_rows(kind: Literal["turn", "question"], result: SuiteResult) -> list[RejectedRow]:
    """One line per flaw: a row with two flaws is named twice."""
    return [
        RejectedRow(kind=kind, id=row.id, field=row.field, value=row.value, reason=check.meta.reason)
        for check in result.checks
        if _removes(check)
        for row in check.flawed
    ]


def _removes(check: CheckResult) -> bool:
    return check.passed and check.meta.flawed_rows == "removed"


def _build_context(data_docs: Path | None) -> "EphemeralDataContext":
    """A Great Expectations context that keeps nothing, writes Data Docs only where told, and calls nobody."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read while it is imported
    import great_expectations
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    if data_docs is not None:
        shutil.rmtree(data_docs, ignore_errors=True)
        context.update_data_docs_site(
            site_name="local_site",
            site_config={
                "class_name": "SiteBuilder",
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(data_docs.absolute()),
                },
            },
        )
    return context


def _run_suite(context: "EphemeralDataContext", name: str, rows: Sequence[Row]) -> SuiteResult:
    """Evaluate one suite over the rows. Raises ConfigError when the suite itself is at fault."""
    import pandas
    from great_expectations import ValidationDefinition

    suite, id_columns, columns = _load_suite(context, name)
    absent = columns - set(rows[0]) if rows else set()
    if absent:
        raise ConfigError(f"expectations/{name}.json asks for {sorted(absent)}, which no row has: {sorted(rows[0])}.")
    frame = pandas.DataFrame.from_records(rows, columns=None if rows else sorted(columns))
    frame.insert(0, "row", range(len(rows)))
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("all rows")
    validation = context.validation_definitions.add(ValidationDefinition(name=name, data=batch, suite=suite))
    outcome = validation.run(
        batch_parameters={"dataframe": frame},
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["row", *id_columns]},
    )
    checks = [_read_result(item, name, rows, id_columns) for item in outcome.results]
    return SuiteResult(suite=name, num_rows=len(rows), passed=bool(outcome.success), checks=tuple(checks))


def _load_suite(context: "EphemeralDataContext", name: str) -> "tuple[ExpectationSuite, list[str], set[str]]":
    """The suite of expectations/<name>.json, the columns that name a row, and all columns it needs."""
    from great_expectations import ExpectationSuite
    from great_expectations.exceptions.exceptions import GreatExpectationsError

    path = expectations_folder() / f"{name}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        suite = context.suites.add(ExpectationSuite(**document))
        metas = [ExpectationMeta.model_validate(item["meta"]) for item in document["expectations"]]
        id_columns = [str(column) for column in document["meta"]["id_columns"]]
    except (OSError, KeyError, TypeError, ValueError, GreatExpectationsError) as error:
        raise ConfigError(f"{path} is not a suite: {error}. See expectations/README.md.") from error
    if len(suite.expectations) != len(metas):  # Great Expectations only logs an expectation that it does not know
        known = {item.expectation_type for item in suite.expectations}
        unknown = [item["type"] for item in document["expectations"] if item["type"] not in known]
        raise ConfigError(f"{path}: {unknown} is no expectation of Great Expectations.")
    needed = {column for item in document["expectations"] for column in _needed_columns(item["kwargs"])}
    return suite, id_columns, needed.union(id_columns)


def _needed_columns(kwargs: Mapping[str, Any]) -> list[str]:
    condition = kwargs.get("row_condition")
    return [*_columns(kwargs), *([condition["column"]["name"]] if condition else [])]


def _columns(kwargs: Mapping[str, Any]) -> list[str]:
    return [kwargs["column"]] if "column" in kwargs else list(kwargs.get("column_list", ()))


def _read_result(
    item: "ExpectationValidationResult", name: str, rows: Sequence[Row], id_columns: Sequence[str]
) -> CheckResult:
    config, result = item.expectation_config, item.result
    if config is None or not result:
        raise ConfigError(f"expectations/{name}.json: an expectation cannot be evaluated: {item.exception_info}")
    columns = _columns(config.kwargs)
    flawed = [
        FlawedRow(
            place=int(index["row"]),
            id=" ".join(str(rows[index["row"]][column]) for column in id_columns),
            field=", ".join(columns),
            value=", ".join(str(rows[index["row"]][column]) for column in columns)[:MAX_VALUE_LENGTH],
        )
        for index in result.get("unexpected_index_list") or ()
    ]
    return CheckResult(
        expectation=config.type,
        field=", ".join(columns) or "the table",
        mostly=float(config.kwargs.get("mostly", 1)),
        meta=ExpectationMeta.model_validate(config.meta),
        passed=bool(item.success),
        observed=str(result.get("observed_value", "")),
        flawed=tuple(flawed),
    )
