"""Runs the systems of a report, each in a process of its own, side by side while cores and memory allow it.

A process gets its work as `job.json` in the system's folder and leaves its score there: a system whose score is
complete is not run again. Nothing of a system's process outlives its launcher. This module imports no torch.
"""

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from memr1.data.conversation import Dataset
from memr1.environment import has_gpu
from memr1.errors import EvaluationError
from memr1.evaluation.scores import SystemScore
from memr1.evaluation.systems import SystemPlan, digest_work, has_small_models
from memr1.records import Record, write_json
from memr1.run_dir import RunDir

log = logging.getLogger(__name__)
POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0  # between asking a process to end and ending it
JOB_NAME, PROGRESS_NAME = "job.json", "progress.json"
ERROR_MARK = "memr1-error: "  # begins the line in which a process says why it gave up
OnProgress = Callable[[str, str, int, int], None]  # system, phase, steps done, steps in all


class Job(Record):
    """The work of one process."""

    plan: SystemPlan
    data_root: Path  # a run directory that holds 1_data
    conversation_ids: tuple[str, ...]
    work_digest: str
    vector_cache: Path | None  # file of embeddings that the systems share


class Progress(Record):
    """How far a process has come: progress.json in its folder."""

    phase: str
    done: int
    total: int


def run_systems(
    plans: Sequence[SystemPlan],
    dataset: Dataset,
    data: RunDir,
    conversation_ids: Sequence[str],
    folder: Path,
    log_folder: Path,
    *,
    vector_cache: Path | None = None,
    on_progress: OnProgress = lambda system, phase, done, total: None,
) -> dict[str, SystemScore]:
    """Evaluate every plan that is not complete yet; scores by system, in the order of the plans.

    Raises EvaluationError with the words of the first process that fails, after ending the others.
    """
    for plan in plans:
        job = Job(
            plan=plan,
            data_root=data.root.resolve(),
            conversation_ids=tuple(conversation_ids),
            work_digest=digest_work(plan, dataset, conversation_ids),
            vector_cache=vector_cache,
        )
        _prepare(folder / plan.name, job)
    longest_first = sorted(plans, key=lambda plan: not plan.always_add)  # it keeps all: long prompts
    waiting = [plan.name for plan in longest_first if read_score(folder / plan.name) is None]
    _run_all(waiting, count_processes(plans), folder, log_folder, on_progress)
    return {plan.name: _require_score(folder / plan.name) for plan in plans}


def _run_all(waiting: list[str], num_processes: int, folder: Path, log_folder: Path, on_progress: OnProgress) -> None:
    """Run the named systems, `num_processes` at a time; whatever happens, none is left running."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    told: dict[str, Progress] = {}
    try:
        while waiting or running:
            while waiting and len(running) < num_processes:
                name = waiting.pop(0)
                running[name] = _start(folder / name, log_folder / f"evaluate_{name}.log", num_processes)
            for name, progress in _read_progress(running, folder).items():
                if told.get(name) != progress:
                    on_progress(name, progress.phase, progress.done, progress.total)
                    told[name] = progress
            _collect(running, folder, log_folder)
            time.sleep(POLL_SECONDS if running else 0)
    finally:
        _end(running.values())


def count_processes(plans: Sequence[SystemPlan]) -> int:
    """One per core, at most one per system; one alone where a GPU or large weights would be shared."""
    if has_gpu() or not all(has_small_models(plan) for plan in plans):
        return 1
    return max(1, min(len(plans), len(os.sched_getaffinity(0))))


def read_score(folder: Path) -> SystemScore | None:
    """A system's score, or None while it is not complete."""
    try:
        return SystemScore.model_validate_json((folder / "score.json").read_bytes())
    except (OSError, ValidationError):
        return None


def _prepare(folder: Path, job: Job) -> None:
    """Put the job into the system's folder; what the folder holds of other work is dropped."""
    try:
        begun = Job.model_validate_json((folder / JOB_NAME).read_bytes()).work_digest
    except (OSError, ValidationError):
        begun = None
    if begun != job.work_digest:
        shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / JOB_NAME, job.model_dump(mode="json"))


def _start(folder: Path, log_path: Path, num_processes: int) -> subprocess.Popen[bytes]:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, len(os.sched_getaffinity(0)) // num_processes))
    with log_path.open("wb") as log_file:
        return subprocess.Popen(
            [sys.executable, "-m", "memr1.evaluation.worker", str(folder.resolve())],
            stdout=log_file,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": threads, **os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )


def _read_progress(names: Iterable[str], folder: Path) -> dict[str, Progress]:
    """How far the systems are, as far as they have said."""
    found: dict[str, Progress] = {}
    for name in names:
        try:
            found[name] = Progress.model_validate_json((folder / name / PROGRESS_NAME).read_bytes())
        except (OSError, ValidationError):
            continue  # not written yet
    return found


def _collect(running: dict[str, subprocess.Popen[bytes]], folder: Path, log_folder: Path) -> None:
    for name, process in list(running.items()):
        code = process.poll()
        if code is None:
            continue
        del running[name]
        if code != 0:
            raise EvaluationError(_explain(name, code, log_folder / f"evaluate_{name}.log"))
        log.info("evaluated %s", name)


def _explain(name: str, code: int, log_path: Path) -> str:
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    marked = [line.removeprefix(ERROR_MARK) for line in lines if line.startswith(ERROR_MARK)]
    last = [line for line in lines if line.strip()][-1:]
    reason = marked[-1] if marked else f"its process ended with code {code}: {''.join(last) or 'it printed nothing'}"
    return f"system {name} could not be evaluated: {reason}\nits log: {log_path}"


def _require_score(folder: Path) -> SystemScore:
    score = read_score(folder)
    if score is None:
        raise EvaluationError(f"the evaluation of {folder.name} ended but left no score in {folder}: run it again")
    return score


def _end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ask every process to end, and end those that do not."""
    waiting = [process for process in processes if process.poll() is None]
    for process in waiting:
        process.terminate()
    for process in waiting:
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
