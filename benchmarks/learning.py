"""What reinforcement teaches the tiny pair: exact match on held-out questions, several seeds of the quickstart.

    python benchmarks/learning.py [--quick] [--out FILE.json]

    warm_start      both agents as shipped
    always_add      everything is kept, nothing is learnt
    manager_only    the Memory Manager trained by GRPO, the Answer Agent as shipped
    answer_only     the other way round (trained on the trained Manager's banks)
    grpo, ppo       both agents trained

A seed makes another world of conversations and other rollouts; the shipped weights are the same. --quick runs one seed
on few conversations and few steps: it shows that the benchmark works, and teaches nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import run_benchmark

from memr1.config import AgentName, read_resolved_config
from memr1.data.stored import read_dataset
from memr1.environment import embedding_cache
from memr1.evaluation.launch import run_systems
from memr1.evaluation.systems import SystemPlan
from memr1.run_dir import RunDir

SEEDS = (7, 8, 9)
HALVES: dict[str, AgentName] = {"manager_only": "memory_manager", "answer_only": "answer_agent"}
PPO = ("training.algorithm=ppo", "training.critic_learning_rate=1e-3", "training.value_coefficient=0.1")
QUICK = (
    "data.num_train=6", "data.num_validation=1", "data.num_test=3", "training.memory_manager.num_steps=2",
    "training.answer_agent.num_steps=2", "training.prompts_per_step=4",
)  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    seeds = SEEDS[:1] if options.quick else SEEDS
    for seed in seeds:
        for name, score in score_seed(seed, QUICK if options.quick else ()):
            found.setdefault(name, []).append(score)
            print(f"seed {seed}: {name} {score:.3f}", file=sys.stderr, flush=True)
    systems = {name: {"exact_match": summarise(scores)} for name, scores in found.items()}
    return {"seeds": list(seeds), "systems": systems}


def score_seed(seed: int, options: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """(system, exact match) of one seed."""
    with TemporaryDirectory() as folder:
        grpo = train(Path(folder) / "grpo", seed, options)
        scores = read_scores(grpo)
        yield from ((name, scores[name]) for name in ("warm_start", "always_add"))
        yield from score_halves(grpo)
        yield "grpo", scores["trained"]
        yield "ppo", read_scores(train(Path(folder) / "ppo", seed, (*options, *PPO)))["trained"]


def train(folder: Path, seed: int, options: tuple[str, ...]) -> RunDir:
    """A whole run, with a home (registry, caches) of its own."""
    words = [word for option in (f"seed={seed}", *options) for word in ("--set", option)]
    environment = {**os.environ, "MEMR1_HOME": str(folder / "home")}
    memr1 = Path(sys.executable).with_name("memr1")
    command = [str(memr1), "run", "quickstart", "--run-dir", str(folder / "run"), *words]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return RunDir(folder / "run")


def score_halves(run: RunDir) -> Iterator[tuple[str, float]]:
    """The pair with one agent trained and the other as shipped."""
    config, dataset = read_resolved_config(run.config), read_dataset(run)
    plans = [SystemPlan(name=name, config=config, models={agent: run.model(agent)}) for name, agent in HALVES.items()]
    folder = run.root / "halves"
    scores = run_systems(plans, dataset, run, dataset.splits.test, folder, folder, vector_cache=embedding_cache())
    yield from ((name, score.exact_match) for name, score in scores.items())


def read_scores(run: RunDir) -> dict[str, float]:
    """System → exact match, from the run's report."""
    report = json.loads((run.evaluation / "report.json").read_text(encoding="utf-8"))
    return {name: system["exact_match"] for name, system in report["systems"].items()}


def summarise(scores: list[float]) -> dict[str, Any]:
    deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return {"mean": round(statistics.mean(scores), 3), "sd": round(deviation, 3), "seeds": scores}


def show(figures: Mapping[str, Any]) -> str:
    lines = ["system          exact match     sd"]
    for name, system in figures["systems"].items():
        score = system["exact_match"]
        lines.append(f"{name:14}  {score['mean']:>11.3f}  {score['sd']:>5.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_benchmark("learning", __doc__, measure, show)
