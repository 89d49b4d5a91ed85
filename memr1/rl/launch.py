"""Starts the training of one phase, follows it, and ends every rank with it, on this machine and on the others.

Left out: training itself (memr1.rl.worker). This module imports no torch: the flow stays light.
"""

import math
import re
import subprocess
import time
from collections.abc import Callable, Mapping
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
    read_served,
)
from memr1.rl.lengths import LIST_NAME
from memr1.rl.meeting import Gathering, open_meeting
from memr1.rl.sampling import check_sampler
from memr1.rl.torchrun import started_ranks
from memr1.rl.worker import ERROR_MARK
from memr1.run_dir import RunDir

POLL_SECONDS = 0.25
# The last line of a rank's traceback, or torchrun's word on a rank that a signal ended. Not: torchrun's own traceback,
# and that of a rank which only misses another one.
DEATH = re.compile(
    r"(?!torch\.distributed\.elastic|.*Connection (closed|reset) by peer)(\[rank\d+\]: |.*traceback *: )?"
    r"(?P<error>[\w.]+(Error|Exception)\b.*|Signal \d+ \(\w+\) received.*)"
)


class TrainingSummary(Record):
    """What one phase's training did. Rewards are means over the first and the last tenth of the steps with rollouts."""

    phase: str
    num_steps: int
    first_reward: float
    last_reward: float
    num_left_out: int  # examples with too long a prompt
    served_step: int
    validation_reward: float | None  # of the weights that are served; None without validation examples
    seconds: float


def launch_training(
    run: RunDir,
    config: RunConfig,
    phase: str,
    log_path: Path,
    on_step: Callable[[StepMetrics], None] = lambda _: None,
) -> TrainingSummary:
    """Train one phase's policy to the end; `on_step` sees each line of metrics.jsonl as it is written.

    It first sees the lines that an earlier attempt left: a flow that was killed may not have passed them on.

    Raises ConfigError when rollouts cannot be sampled here, WorkerFailed with the worker's own words and the log's
    path. Any exception here, a cancelled flow's too, ends all ranks first.
    """
    check_sampler(config.training.rollout)
    started = time.monotonic()
    folder = run.checkpoints(phase)
    metrics = folder / "metrics.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = newest_whole_checkpoint(folder)
    forget_steps_after(metrics, checkpoint_step(checkpoint) if checkpoint else 0)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    said_before = log_sizes(log_path)
    with log_path.open("ab") as log_file, open_meeting(run, config, phase, log_file) as (rendezvous, others):
        with started_ranks(run, config, phase, log_file, rendezvous) as process:
            fault = _follow(process, metrics, on_step, others)
        if others is not None and not fault:
            others.await_others()
    if fault or process.returncode != 0:
        raise WorkerFailed(explain_failure(phase, fault or f"exit code {process.returncode}", log_path, said_before))
    if not run.model(phase).is_dir():
        raise CheckpointMissing(f"training ended but left no weights in {run.model(phase)}; its log: {log_path}")
    return _summary(phase, folder, time.monotonic() - started)


def _follow(
    process: "subprocess.Popen[bytes]", metrics: Path, on_step: Callable[[StepMetrics], None], others: Gathering | None
) -> str | None:
    """Show each step once, until the process ends or another machine is at fault: how."""
    num_shown = 0
    ended, fault = False, None
    while not ended and fault is None:
        ended = process.poll() is not None
        steps = read_metrics(metrics)
        for step in steps[num_shown:]:
            on_step(step)
        num_shown = len(steps)
        if others is not None and not ended:
            fault = others.find_fault()
        time.sleep(0 if ended else POLL_SECONDS)
    return fault


def log_sizes(log_path: Path) -> dict[Path, int]:
    """The log of this machine, and beside it those of the others."""
    logs = [log_path, *sorted(log_path.parent.glob(f"{log_path.stem}.*.log"))]
    return {path: path.stat().st_size for path in logs if path.exists()}


def explain_failure(phase: str, outcome: str, log_path: Path, said_before: Mapping[Path, int]) -> str:
    """The worker's own words, else what a rank died of."""
    texts = [path.read_bytes()[said_before.get(path, 0) :] for path in log_sizes(log_path)]
    lines = [line for text in texts for line in text.decode(errors="replace").splitlines()]
    told = [line.removeprefix(ERROR_MARK) for line in lines if line.startswith(ERROR_MARK)]
    errors = [found["error"] for line in lines if (found := DEATH.match(line))]
    reason = (told or errors or [outcome])[-1]
    return f"training {phase} failed: {reason}\nThe whole log: {log_path}"


def _summary(phase: str, folder: Path, seconds: float) -> TrainingSummary:
    steps = [step for step in read_metrics(folder / "metrics.jsonl") if "reward" in step]
    rewards = [step["reward"] for step in steps if not math.isnan(step["reward"])]
    served = read_served(folder)
    tenth = max(1, len(rewards) // 10)
    left_out = folder / LIST_NAME
    return TrainingSummary(
        phase=phase,
        num_steps=len(steps),
        first_reward=sum(rewards[:tenth]) / tenth if rewards else 0.0,
        last_reward=sum(rewards[-tenth:]) / tenth if rewards else 0.0,
        num_left_out=len(left_out.read_text(encoding="utf-8").splitlines()) if left_out.exists() else 0,
        served_step=served.step,
        validation_reward=served.validation_reward,
        seconds=round(seconds, 2),
    )
