"""How a benchmark trains agents and scores pairs: each in a process of its own, as a run does, or `here`, in this one.

Starting a process takes as long as the little that --quick asks of it.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import torch.distributed

from memr1.bank.embedding import build_embedder
from memr1.config import AgentName, RunConfig
from memr1.data.conversation import Dataset
from memr1.data.stored import read_dataset, write_dataset
from memr1.data.validation import validate_dataset
from memr1.environment import embedding_cache, set_environment_defaults
from memr1.evaluation.evaluate import evaluate_system
from memr1.evaluation.launch import run_systems
from memr1.evaluation.systems import SystemPlan
from memr1.evaluation.worker import build_system
from memr1.records import write_json
from memr1.rl.launch import launch_training
from memr1.rl.worker import join_process_group, train
from memr1.run_dir import RunDir


def set_process_defaults() -> None:
    """What every process of a run begins with."""
    set_environment_defaults()
    torch.set_num_threads(1)  # the variable that says so comes too late for a torch that has been imported


def open_run(folder: Path, config: RunConfig) -> RunDir:
    """A new run directory, and what a run keeps at home in it too: none profits from what another one computed."""
    run = RunDir(folder)
    os.environ["MEMR1_HOME"] = str(folder / "home")
    write_json(run.config, config.model_dump(mode="json"))
    return run


def write_data(run: RunDir, dataset: Dataset) -> None:
    """Through the gates, as stage 1 does."""
    accepted, _ = validate_dataset(dataset, run)
    write_dataset(run, accepted)


def train_agent(run: RunDir, config: RunConfig, agent: AgentName, *, here: bool) -> None:
    """Train one agent on its examples; `here` on one rank, whatever the configuration says."""
    if not here:
        launch_training(run, config, agent, run.logs / "train.log")
        return
    join_as_only_rank()
    train(run, config, agent)


def score_systems(plans: Sequence[SystemPlan], run: RunDir, folder: Path, *, here: bool) -> dict[str, float]:
    """System → exact match on the test conversations of a run."""
    dataset = read_dataset(run)
    test = dataset.splits.test
    if not here:
        scores = run_systems(plans, dataset, run, test, folder, folder, vector_cache=embedding_cache())
        return {name: score.exact_match for name, score in scores.items()}
    embedder = build_embedder(embedding_cache())
    return {
        plan.name: evaluate_system(
            plan.name, build_system(plan), dataset, test, embedder, folder / plan.name
        ).exact_match
        for plan in plans
    }


def join_as_only_rank() -> None:
    """A process group of one, once in a process."""
    if torch.distributed.is_initialized():
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(port)
    join_process_group()
