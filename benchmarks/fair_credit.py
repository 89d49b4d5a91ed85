"""Which credit teaches a Memory Manager more in the same time: by the turn, by trajectories, or by both at once.

    python benchmarks/fair_credit.py [--quick] [--seconds 180] [--out FILE.json]

    step              one turn from a prepared bank (training.credit.kind = "step")
    whole_trajectory  whole sessions from an empty bank, scored by the bank at the end (no session is read again)
    local_global      the same, and single sessions read again from the bank before them

Conversations of the easy world's words over eight sessions; the Manager is trained by GRPO, the Answer Agent is the
shipped one, frozen; exact match of the pair on held-out conversations. A seed makes another world and other rollouts.

Equal time: a few steps of every stage of an arm are timed once, then its stages get equal parts of --seconds in whole
steps. `seconds` is what the steps then took, without the start of the processes; the banks that `step` needs before
it can begin are not charged to it. The learning rate decays over the steps of each arm. --quick takes one step of one
stage and one seed: it shows that the benchmark works, and teaches nothing.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import run_benchmark
from running import open_run, score_systems, set_process_defaults, train_agent, write_data

from memr1.agents.bank_stage import build_training_banks
from memr1.bank.embedding import build_embedder
from memr1.config import RunConfig, load_config
from memr1.data.conversation import Dataset
from memr1.data.synthetic import WORLDS, SyntheticOptions, build_synthetic_dataset
from memr1.environment import embedding_cache
from memr1.evaluation.systems import SystemPlan
from memr1.rl.checkpoints import StepMetrics, read_metrics
from memr1.rl.prepare import write_manager_examples
from memr1.run_dir import RunDir

SEEDS = (7, 8, 9)
SESSIONS = (2, 4, 8)  # of the curriculum's stages; `step` has one stage, and sees all sessions
TIMED_STEPS = 3  # of every stage
WORLD = WORLDS["easy"].model_copy(
    update={"num_sessions": 8, "num_changed": 6, "num_steady": 7, "num_repeats": 5, "num_small_talk": 10}
)
BY_TRAJECTORY = ("training.credit.kind=local_global", "training.credit.conversations_per_step=2")
ARMS: dict[str, tuple[str, ...]] = {
    "step": (),
    "whole_trajectory": (*BY_TRAJECTORY, "training.credit.reread_probability=0"),
    "local_global": (*BY_TRAJECTORY, "training.credit.reread_probability=0.5"),
}
QUICK = (
    "training.prompts_per_step=4", "training.num_processes=1", "training.credit.conversations_per_step=1",
    "training.credit.num_trajectories=2", "training.credit.num_rereads=2",
)  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    set_process_defaults()
    sizes = {"num_train": 4, "num_test": 1} if options.quick else {"num_train": 60, "num_test": 30}
    seeds = SEEDS[:1] if options.quick else SEEDS
    with TemporaryDirectory() as folder:
        benchmark = FairCredit(Path(folder), sizes, options.seconds, quick=options.quick)
        scores = [benchmark.score_seed(seed) for seed in seeds]
    found = {name: [score[name] for score in scores] for name in scores[0]}
    arms = {
        name: {
            "exact_match": summarise(found[name]),
            "seconds": benchmark.seconds[name],
            "steps": benchmark.steps[name],
        }
        for name in ARMS
    }
    return {"seeds": list(seeds), "warm_start": {"exact_match": summarise(found["warm_start"])}, "arms": arms}


class FairCredit:
    """Trains and scores all arms, seed after seed, in folders of its own."""

    def __init__(self, folder: Path, sizes: Mapping[str, int], budget_seconds: float, *, quick: bool) -> None:
        self._folder, self._sizes, self._budget_seconds, self._quick = folder, sizes, budget_seconds, quick
        self.steps: dict[str, list[int]] = {}  # of each arm's stages
        self.seconds: dict[str, list[float]] = {name: [] for name in ARMS}  # of each seed

    def score_seed(self, seed: int) -> dict[str, float]:
        """System → exact match."""
        options = SyntheticOptions(level="easy", world=WORLD, num_validation=1, **self._sizes)
        dataset = build_synthetic_dataset(options, seed)
        plans = [SystemPlan(name="warm_start", config=load_config("quickstart", [f"seed={seed}"]), models={})]
        for name in ARMS:
            if name not in self.steps:
                self.steps[name] = self._share_budget(name, dataset, seed)
            run, config = self._train(f"{name}_{seed}", name, self.steps[name], dataset, seed)
            self.seconds[name].append(round(sum(step["seconds"] for step in metrics_of(run)), 1))
            plans.append(SystemPlan(name=name, config=config, models={"memory_manager": run.model("memory_manager")}))
            print(f"seed {seed}: {name} {self.steps[name]} steps, {self.seconds[name][-1]} s", file=sys.stderr)
        return score_systems(plans, run, self._folder / f"scores_{seed}", here=self._quick)

    def _share_budget(self, name: str, dataset: Dataset, seed: int) -> list[int]:
        """Steps of each stage, so that every stage takes as long and all of them the budget."""
        stages = stages_of(name, self._quick)
        if self._quick:
            return [1] * len(stages)
        run, _ = self._train(f"{name}_timed", name, [TIMED_STEPS] * len(stages), dataset, seed)
        taken = [step["seconds"] for step in metrics_of(run)]
        paces = [
            statistics.median(taken[place * TIMED_STEPS : (place + 1) * TIMED_STEPS]) for place in range(len(stages))
        ]
        return [max(1, round(self._budget_seconds / len(stages) / pace)) for pace in paces]

    def _train(
        self, folder: str, name: str, steps: Sequence[int], dataset: Dataset, seed: int
    ) -> tuple[RunDir, RunConfig]:
        words = [f"seed={seed}", "bank.kind=in_memory", "training.checkpoint_every=1000000", *ARMS[name]]
        words.append("training.max_validation_examples=0")  # every arm's last step is scored, by the benchmark
        words.append(f"training.memory_manager.num_steps={sum(steps)}")
        if ARMS[name]:
            stages = [list(stage) for stage in zip(stages_of(name, self._quick), steps, strict=True)]
            words.append(f"training.credit.curriculum={stages}")
        if self._quick:
            words += [word for word in QUICK if ARMS[name] or not word.startswith("training.credit.")]
        config = load_config("quickstart", words)
        run = open_run(self._folder / folder, config)
        write_data(run, dataset)
        if not ARMS[name]:
            build_training_banks(run, config, embedding_cache(), lambda *_: None)
            write_manager_examples(run, config, build_embedder(embedding_cache()))
        train_agent(run, config, "memory_manager", here=self._quick)
        return run, config


def stages_of(name: str, quick: bool) -> tuple[int, ...]:
    """Sessions of an arm's stages."""
    return (SESSIONS[:1] if quick else SESSIONS) if ARMS[name] else SESSIONS[-1:]


def metrics_of(run: RunDir) -> list[StepMetrics]:
    """What the Manager's training noted, step by step."""
    return read_metrics(run.checkpoints("memory_manager") / "metrics.jsonl")


def summarise(scores: Sequence[float]) -> dict[str, Any]:
    deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return {"mean": round(statistics.mean(scores), 3), "sd": round(deviation, 3), "seeds": list(scores)}


def show(figures: Mapping[str, Any]) -> str:
    lines = ["arm               exact match     sd  seconds  steps"]
    rows = {"warm_start": {**figures["warm_start"], "seconds": [0.0], "steps": [0]}, **figures["arms"]}
    for name, arm in rows.items():
        score, seconds = arm["exact_match"], statistics.mean(arm["seconds"])
        lines.append(f"{name:16}  {score['mean']:>11.3f}  {score['sd']:>5.3f}  {seconds:>7.1f}  {sum(arm['steps']):>5}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_benchmark("fair_credit", __doc__, measure, show)
