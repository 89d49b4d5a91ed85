"""Stage 4: 1_data and 4_checkpoints → 5_evaluation. The trained pair against the warm start, a baseline, the champion.

Each system's own Memory Manager reads the held-out conversations, then its Answer Agent answers about them.
"""

from pathlib import Path

from prefect import flow, task

from flows.results import show_results
from flows.stages import finish_stage, is_remote_registry
from flows.work import Counts
from memr1.console import show_progress
from memr1.environment import embedding_cache
from memr1.run_dir import RunDir
from memr1.run_start import OpenRun


@flow(name="evaluate")
def evaluate(run_dir: Path) -> None:
    """Score the systems on the same questions, and show the table in the server."""
    finish_stage(run_dir, "evaluate", _compare_systems)
    show_results(RunDir(run_dir))


@task(retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=is_remote_registry)
def find_champion(model_name: str) -> Path | None:
    """The pair that serves today, downloaded from the registry; None without one."""
    from memr1.registry.promotion import download_champion

    return download_champion(model_name)


def _compare_systems(opened: OpenRun) -> Counts:
    from memr1.evaluation.stage import evaluate_run

    champion = find_champion(opened.config.registry.model_name)
    with show_progress("evaluating") as on_progress:
        report = evaluate_run(
            opened.run,
            opened.config,
            champion=champion,
            log_folder=opened.logs,
            vector_cache=embedding_cache(),
            on_progress=lambda system, phase, done, total: on_progress(done, total, part=f"{system}, {phase}"),
        )
    scores = {f"{name}_exact_match": round(score.exact_match, 3) for name, score in report.systems.items()}
    return {"num_questions": report.dataset.num_questions, **scores}
