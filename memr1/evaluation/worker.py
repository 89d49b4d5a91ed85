"""One evaluation process: `python -m memr1.evaluation.worker FOLDER`. Its work stands in FOLDER/job.json.

It talks to its launcher (`memr1.evaluation.launch`) through files, one marked line on stderr, and its exit code.
"""

import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from memr1.agents.answer_agent import AnswerAgent
from memr1.agents.fact_extractor import FactExtractor
from memr1.agents.memory_manager import ManagerPolicy
from memr1.agents.pair import PairSettings, build_pair, load_pair
from memr1.bank.embedding import build_embedder
from memr1.config import AGENTS
from memr1.data.stored import read_dataset
from memr1.errors import EvaluationError, Memr1Error
from memr1.evaluation.baselines import AlwaysAddManager
from memr1.evaluation.evaluate import EvaluatedPair, OnStep, evaluate_system
from memr1.evaluation.launch import ERROR_MARK, JOB_NAME, PROGRESS_NAME, Job, Progress
from memr1.evaluation.systems import SystemPlan
from memr1.records import write_json
from memr1.run_dir import RunDir

SECONDS_BETWEEN_REPORTS = 0.5


@dataclass(frozen=True)
class BaselinePair:
    """A pair whose Memory Manager was replaced."""

    manager: ManagerPolicy
    answer_agent: AnswerAgent
    extractor: FactExtractor
    settings: PairSettings


def main() -> None:
    """Evaluate the system of one folder."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_end_with_launcher, args=(os.getppid(),), daemon=True).start()
    try:
        run_job(Path(sys.argv[1]))
    except Memr1Error as error:
        print(ERROR_MARK + " ".join(str(error).split()), file=sys.stderr, flush=True)
        raise SystemExit(1) from error


def run_job(folder: Path) -> None:
    """Do the work of `folder/job.json`; `folder/score.json` is written last."""
    job = Job.model_validate_json((folder / JOB_NAME).read_bytes())
    evaluate_system(
        job.plan.name,
        build_system(job.plan),
        read_dataset(RunDir(job.data_root)),
        job.conversation_ids,
        build_embedder(job.vector_cache),
        folder,
        on_step=_report_to(folder / PROGRESS_NAME),
    )
    (folder / PROGRESS_NAME).unlink(missing_ok=True)


def build_system(plan: SystemPlan) -> EvaluatedPair:
    """Load the agents of a plan. Raises what loading raises (AgentError, CheckpointMissing)."""
    if plan.pair_folder is not None:
        return load_pair(plan.pair_folder)
    if plan.config is None:
        raise EvaluationError(f"system {plan.name} has neither a configuration nor a pair folder")
    pair = build_pair(plan.config, {agent: plan.models.get(agent) for agent in AGENTS})
    if not plan.always_add:
        return pair
    return BaselinePair(AlwaysAddManager(), pair.answer_agent, pair.extractor, pair.settings)


def _report_to(path: Path) -> OnStep:
    """Writes a step to `path`, but not more often than anyone looks."""
    reported = 0.0

    def report(phase: str, done: int, total: int) -> None:
        nonlocal reported
        if time.monotonic() - reported >= SECONDS_BETWEEN_REPORTS or done == total:
            write_json(path, Progress(phase=phase, done=done, total=total).model_dump())
            reported = time.monotonic()

    return report


def _end_with_launcher(launcher_pid: int) -> None:
    """A launcher that is killed cannot end its processes: each watches for itself, so that none writes on unseen."""
    while os.getppid() == launcher_pid:
        time.sleep(0.5)
    os._exit(143)


if __name__ == "__main__":
    main()
