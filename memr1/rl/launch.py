"""Starts the training of one phase under torchrun in its own process group, follows it, and ends every rank with it.

Left out: training itself (memr1.rl.worker). This module imports no torch: the flow stays light.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from memr1.config import RunConfig
from memr1.errors import CheckpointMissing, WorkerFailed
from memr1.records import Record
from memr1.rl.checkpoints import (
    StepMetrics,
    checkpoint_step,
    forget_steps_after,
    newest_whole_checkpoint,
    read_metrics,
)
from memr1.rl.worker import ERROR_MARK, PARENT_VARIABLE
from memr1.run_dir import RunDir

log = logging.getLogger(__name__)
POLL_SECONDS = 0.25
GRACE_SECONDS = 5.0  # between asking ranks to end and ending them


class TrainingSummary(Record):
    """What one phase's training did. Rewards are means over the first and the last tenth of the steps."""

    phase: str
    num_steps: int
    first_reward: float
    last_reward: float
    seconds: float


def launch_training(
    run: RunDir,
    config: RunConfig,
    phase: str,
    log_path: Path,
    on_step: Callable[[StepMetrics], None] = lambda _: None,
) -> TrainingSummary:
    """Train one phase's policy to the end; `on_step` sees each line of metrics.jsonl as it is written.

    Raises WorkerFailed with the worker's own words and the log's path. Any exception here, a cancelled flow's too,
    ends all ranks first.
    """
    started = time.monotonic()
    metrics = run.checkpoints(phase) / "metrics.jsonl"
    metrics.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = newest_whole_checkpoint(run.checkpoints(phase))
    forget_steps_after(metrics, checkpoint_step(checkpoint) if checkpoint else 0)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log_file:
        process = subprocess.Popen(
            _command(run, config, phase),
            stdout=log_file,
            stderr=subprocess.STDOUT,
            env=_environment(config),
            start_new_session=True,
        )
        try:
            _follow(process, metrics, on_step)
        finally:
            _end_group(process)
    if process.returncode != 0:
        raise WorkerFailed(_explain(phase, process.returncode, log_path))
    if not run.model(phase).is_dir():
        raise CheckpointMissing(f"training ended but left no weights in {run.model(phase)}; its log: {log_path}")
    return _summary(phase, read_metrics(metrics), time.monotonic() - started)


def _command(run: RunDir, config: RunConfig, phase: str) -> list[str]:
    ranks = ["--standalone", "--nproc-per-node", str(config.training.num_processes)]
    worker = ["-m", "memr1.rl.worker", str(run.root.resolve()), phase]
    return [sys.executable, "-m", "torch.distributed.run", *ranks, *worker]


def _environment(config: RunConfig) -> dict[str, str]:
    cores = os.cpu_count() or 1
    threads = str(max(1, cores // config.training.num_processes))
    return {"OMP_NUM_THREADS": threads, **os.environ, PARENT_VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1"}


def _follow(process: subprocess.Popen[bytes], metrics: Path, on_step: Callable[[StepMetrics], None]) -> None:
    """Show each step once, until the process ends."""
    num_shown = len(read_metrics(metrics))
    ended = False
    while not ended:
        ended = process.poll() is not None
        steps = read_metrics(metrics)
        for step in steps[num_shown:]:
            on_step(step)
        num_shown = len(steps)
        time.sleep(0 if ended else POLL_SECONDS)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask torchrun to end (it then ends its ranks), and end what is left of its group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("training did not end within %.0f s of being asked; ending it", GRACE_SECONDS)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the group is gone, as it should be
    process.wait()


def _explain(phase: str, returncode: int, log_path: Path) -> str:
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line.removeprefix(ERROR_MARK) for line in lines if line.startswith(ERROR_MARK)]
    errors = [line.strip() for line in lines if "Error" in line and not line.startswith(" ")]
    reason = (told or errors or [f"exit code {returncode}"])[-1]
    return f"training {phase} failed: {reason}\nThe whole log: {log_path}"


def _summary(phase: str, steps: list[StepMetrics], seconds: float) -> TrainingSummary:
    rewards = [step["reward"] for step in steps]
    tenth = max(1, len(rewards) // 10)
    return TrainingSummary(
        phase=phase,
        num_steps=len(rewards),
        first_reward=sum(rewards[:tenth]) / tenth if rewards else 0.0,
        last_reward=sum(rewards[-tenth:]) / tenth if rewards else 0.0,
        seconds=round(seconds, 2),
    )
