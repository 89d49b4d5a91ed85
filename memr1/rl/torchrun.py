"""Starts this machine's ranks under torchrun, in a process group of their own, and ends every one of them."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from memr1.config import RunConfig
from memr1.rl.worker import PARENT_VARIABLE
from memr1.run_dir import RunDir

log = logging.getLogger(__name__)
GRACE_SECONDS = 5.0  # between asking ranks to end and ending them


@contextmanager
def started_ranks(
    run: RunDir, config: RunConfig, phase: str, log_file: BinaryIO, rendezvous: Sequence[str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """torchrun and its ranks; whatever happens inside, they have ended afterwards. `rendezvous`: torchrun's options."""
    ranks = [*rendezvous, "--nproc-per-node", str(config.training.processes_per_node)]
    worker = ["-m", "memr1.rl.worker", str(run.root.resolve()), phase]
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *ranks, *worker],
        stdin=subprocess.DEVNULL,
        stdout=log_file,
        stderr=subprocess.STDOUT,
        env=_environment(config),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end_group(process)


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end (torchrun then ends its ranks), and end what is left of its group."""
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


def _environment(config: RunConfig) -> dict[str, str]:
    cores = os.cpu_count() or 1
    threads = str(max(1, cores // config.training.processes_per_node))
    return {"OMP_NUM_THREADS": threads, **os.environ, PARENT_VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
