"""`memr1 evaluate --data`: a trained pair's score on every conversation of any dataset file."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from memr1.console import render_table, show_on_terminal, show_progress
from memr1.environment import embedding_cache, find_home, set_hub_default
from memr1.errors import ConfigError
from memr1.run_dir import RunDir
from memr1.run_start import names_hub_model, read_config

if TYPE_CHECKING:
    from memr1.evaluation.systems import SystemPlan

log = logging.getLogger(__name__)


def score_file(data: Path, trained_run: Path | None, model: str | None, output: Path | None) -> None:
    """Score a run's systems or a registered pair on `data`, write the report and say where it is."""
    from memr1.evaluation.rendering import describe_questions, overall_table
    from memr1.evaluation.stage import evaluate_file

    show_on_terminal()
    plans = _plans_of_run(trained_run) if trained_run is not None else _plans_of_model(model or "")
    folder = output or find_home() / "evaluations" / f"{data.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    _refuse_foreign(folder)
    with show_progress("evaluating") as on_progress:
        report = evaluate_file(
            plans,
            data,
            RunDir(folder),
            vector_cache=embedding_cache(),
            on_progress=lambda system, phase, done, total: on_progress(done, total, part=f"{system}, {phase}"),
        )
    log.info("%s: %s\n%s", report.dataset.name, describe_questions(report), render_table(*overall_table(report)))
    if report.dataset.licence_notice:
        log.warning("%s", report.dataset.licence_notice)
    log.info("the report: %s", RunDir(folder).evaluation / "report.md")


def _plans_of_run(root: Path) -> "list[SystemPlan]":
    from memr1.evaluation.systems import plan_systems

    run = RunDir(root)
    config = read_config(run)
    set_hub_default(names_hub_model(config))
    return plan_systems(run, config, config.evaluation.systems)


def _plans_of_model(uri: str) -> "list[SystemPlan]":
    from memr1.evaluation.systems import SystemPlan
    from memr1.registry.promotion import load_model_pair

    set_hub_default(names_hub_model=False)
    return [SystemPlan(name="trained", pair_folder=load_model_pair(uri))]


def _refuse_foreign(folder: Path) -> None:
    """An output folder is new, empty, or an earlier evaluation's; never a run's."""
    if (folder / "config.json").exists():
        raise ConfigError(f"{folder} is a run directory: choose another --output")
    if folder.is_dir() and any(folder.iterdir()) and not RunDir(folder).data.is_dir():
        raise ConfigError(f"{folder} holds other files: choose another --output")
