"""Stage 4: every system on the held-out conversations, compared in a report. Also for any dataset file."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from memr1.agents.pair import read_settings
from memr1.config import AGENTS, RunConfig
from memr1.data.conversation import Dataset
from memr1.data.loading import load_dataset_file
from memr1.data.stored import read_dataset, write_dataset
from memr1.data.validation import validate_dataset
from memr1.errors import EvaluationError
from memr1.evaluation.comparison import EvaluationReport, ServedVersion, compare_systems
from memr1.evaluation.evaluate import held_out, read_answers
from memr1.evaluation.launch import OnProgress, run_systems
from memr1.evaluation.report import describe_dataset, write_report
from memr1.evaluation.systems import SystemPlan, plan_systems
from memr1.run_dir import RunDir

log = logging.getLogger(__name__)
SERVED_VERSION_NAME = "served_version.json"  # in a pair folder that came from the registry


def evaluate_run(
    run: RunDir,
    config: RunConfig,
    *,
    champion: Path | None = None,
    log_folder: Path | None = None,
    vector_cache: Path | None = None,
    on_progress: OnProgress = lambda system, phase, done, total: None,
) -> EvaluationReport:
    """Compare a run's systems, and the champion's pair folder if there is one, on the run's test conversations.

    Raises EvaluationError: nothing to score, no trained weights, or a system that could not be evaluated.
    """
    dataset = read_dataset(run)
    plans = plan_systems(run, config, config.evaluation.systems, champion)
    return evaluate_systems(
        plans,
        dataset,
        run,
        dataset.splits.test,
        split="test",
        seed=config.seed,
        log_folder=log_folder,
        vector_cache=vector_cache,
        on_progress=on_progress,
    )


def evaluate_file(
    plans: Sequence[SystemPlan],
    data: Path,
    output: RunDir,
    *,
    seed: int = 0,
    log_folder: Path | None = None,
    vector_cache: Path | None = None,
    on_progress: OnProgress = lambda system, phase, done, total: None,
) -> EvaluationReport:
    """Score systems on every conversation of any dataset file.

    `output` becomes a run directory with 1_data and 5_evaluation. Raises DataError for a file that cannot be used.
    """
    dataset, _ = validate_dataset(load_dataset_file(data), output)
    write_dataset(output, dataset)
    return evaluate_systems(
        plans,
        dataset,
        output,
        [conversation.id for conversation in dataset.conversations],
        split="all",
        seed=seed,
        log_folder=log_folder,
        vector_cache=vector_cache,
        on_progress=on_progress,
    )


def evaluate_systems(
    plans: Sequence[SystemPlan],
    dataset: Dataset,
    output: RunDir,
    conversation_ids: Sequence[str],
    *,
    split: str,
    seed: int,
    log_folder: Path | None,
    vector_cache: Path | None,
    on_progress: OnProgress,
) -> EvaluationReport:
    """Run the systems over `output`'s stored dataset and write its report."""
    if not plans:
        raise EvaluationError("no system to evaluate: name at least one in evaluation.systems")
    held_out(dataset, conversation_ids)  # refuse what cannot be scored before any model is loaded
    systems = output.evaluation / "systems"
    logs = log_folder or output.logs
    scores = run_systems(
        plans, dataset, output, conversation_ids, systems, logs, vector_cache=vector_cache, on_progress=on_progress
    )
    answers = {plan.name: read_answers(systems / plan.name / "answers.jsonl") for plan in plans}
    report = EvaluationReport(
        dataset=describe_dataset(dataset, conversation_ids, split),
        systems=scores,
        differences=tuple(compare_systems(answers, seed)),
        champion=_served_version(plans),
        notes=tuple(describe_limits(plans, dataset)),
    )
    write_report(output.evaluation, report, answers)
    return report


def _served_version(plans: Sequence[SystemPlan]) -> ServedVersion | None:
    """Which registered version was evaluated as `champion`."""
    folder = next((plan.pair_folder for plan in plans if plan.name == "champion"), None)
    if folder is None:
        return None
    path = folder / SERVED_VERSION_NAME
    try:
        return ServedVersion.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise EvaluationError(f"{folder} is not a pair from the registry: cannot read {path.name}: {error}") from error


def describe_limits(plans: Sequence[SystemPlan], dataset: Dataset) -> list[str]:
    """What a reader must know to read the figures right."""
    uses_tiny = any(_uses_tiny(plan) for plan in plans)
    notes = []
    if uses_tiny and not dataset.name.startswith("synthetic"):
        notes.append(
            "The shipped tiny models have 0.8 million parameters and have seen no English but the synthetic world's. "
            "On real conversations they answer almost nothing: these figures show that the path works, not how well "
            "the method does. Name a larger model in memory_manager.generator.model and answer_agent.generator.model."
        )
    if len(dataset.questions) and not any(question.evidence for question in dataset.questions):
        notes.append("No question names its evidence turns, so evidence recall is not known.")
    return notes


def _uses_tiny(plan: SystemPlan) -> bool:
    settings = read_settings(plan.pair_folder) if plan.pair_folder is not None else plan.config or RunConfig()
    generators = [settings.agent(name).generator for name in AGENTS]
    return any(generator.kind == "transformers" and generator.model == "tiny" for generator in generators)
