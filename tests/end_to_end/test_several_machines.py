"""Two machines train together: two torchrun agents on loopback, one rank each, and an ssh that stays at home."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from memr1.errors import WorkerFailed
from memr1.rl.checkpoints import read_metrics
from memr1.rl.launch import launch_training
from memr1.rl.worker import PARENT_VARIABLE
from tests.processes import wait_until
from tests.training_runs import prepared_run, ranks_of

pytestmark = pytest.mark.slow

FAKE_SSH = """#!/bin/sh
# ssh -o BatchMode=yes HOST COMMAND
echo "$3" >> "$0.hosts"
exec sh -c "$4"
"""
TWO_NODES = ("training.num_nodes=2", "training.num_processes=2")


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMR1_NODE_ADDRESS", "127.0.0.1")


def fake_ssh(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh on the PATH that runs its command here; the hosts it was asked for are in the file returned."""
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(FAKE_SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MEMR1_HOSTS", "gpu2")
    return program.with_name("ssh.hosts")


def test_a_host_is_started_over_ssh_trains_along_and_ends_with_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = prepared_run(tmp_path / "run", *TWO_NODES, "training.memory_manager.num_steps=2")
    hosts = fake_ssh(tmp_path, monkeypatch)
    summary = launch_training(run, config, "memory_manager", run.logs / "train.log")
    assert summary.num_steps == 2 and run.model("memory_manager").is_dir()
    assert hosts.read_text().split() == ["gpu2"]
    assert len(list(run.logs.glob("train.*-*.log"))) == 1
    assert not run.nodes("memory_manager").exists() and not ranks_of(run)


def test_a_rank_that_is_killed_on_one_machine_ends_the_training_on_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = prepared_run(tmp_path / "run", *TWO_NODES, "training.memory_manager.num_steps=200")
    fake_ssh(tmp_path, monkeypatch)
    killed: list[int] = []

    def kill_the_other_machines_rank(_: Mapping[str, float]) -> None:
        if not killed:
            killed.append(next(pid for pid in ranks_of(run) if is_rank_elsewhere(pid)))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(WorkerFailed, match="training memory_manager failed"):
        launch_training(run, config, "memory_manager", run.logs / "train.log", kill_the_other_machines_rank)
    assert killed and len(read_metrics(run.checkpoints("memory_manager") / "metrics.jsonl")) < 200
    wait_until(lambda: not ranks_of(run), seconds=20)


def test_a_cancelled_training_ends_the_ranks_of_a_machine_that_joined_by_itself(tmp_path: Path) -> None:
    run, config = prepared_run(tmp_path / "run", *TWO_NODES, "training.memory_manager.num_steps=200")
    command = [sys.executable, "-m", "flows.cli", "train-node", str(run.root), "memory-manager"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as node:

        def cancel(_: Mapping[str, float]) -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError):
            launch_training(run, config, "memory_manager", run.logs / "train.log", cancel)
        wait_until(lambda: not ranks_of(run), seconds=20)
        _, told = node.communicate(timeout=30)
    assert node.returncode == 1 and "the first machine has ended the training" in told


def is_rank_elsewhere(pid: int) -> bool:
    """Whether a rank was started by a machine other than this test's, and is no torchrun."""
    variables = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
    return f"{PARENT_VARIABLE}={os.getpid()}".encode() not in variables and any(
        word.startswith(b"LOCAL_RANK=") for word in variables
    )
