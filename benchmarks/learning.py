"""What reinforcement teaches the tiny pair: exact match on held-out questions of the synthetic world, several seeds.

    python benchmarks/learning.py [--quick] [--out FILE.json]

The easy level (the quickstart):
    warm_start        both agents as shipped
    always_add        everything is kept, nothing is learnt
    manager_only      the Memory Manager trained by GRPO, the Answer Agent as shipped
    answer_only       the other way round (trained on the trained Manager's banks)
    grpo, ppo         both agents trained
    sft               the Answer Agent fine-tuned on reference answers, with the Manager as shipped: it has no labels
    sft_answer_agent  the same with grpo's Manager, on the very examples of grpo's Answer Agent
    best_of_samples   both agents fine-tuned on the best of their own samples, chosen by the reward (fine_tuning.py)
    distillation_off  grpo's Manager, and an Answer Agent trained to answer at once, without picking memories first
The full level (profile synthetic-full): warm_start, always_add, grpo, and the three kinds of fine-tuning.

A seed makes another world of conversations and other rollouts; the shipped weights are the same. `curves` are the
rewards of every training, step by step; they are drawn beside the figures, as learning.svg. --quick runs one seed of
the easy level on a few short conversations for one step, all in one process: it shows that the benchmark works, and
teaches nothing.

answer_only's agent has learnt on the trained Manager's banks, and is asked over the untrained one's.

The whole takes hours on two cores. Finished seeds are kept in a folder beside the figures, one for each commit: the
same command goes on where it was stopped. In a checkout with changes nothing is kept.
"""

import argparse
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from fine_tuning import learn_from_the_best, learn_reference_answers
from harness import found_once, run_benchmark
from matplotlib.figure import Figure
from running import open_run, score_systems, set_process_defaults, train_agent, write_data

from memr1.agents.bank_stage import build_training_banks
from memr1.bank.embedding import build_embedder
from memr1.config import AGENTS, AgentName, RunConfig, load_config
from memr1.data.loading import load_dataset
from memr1.data.synthetic import WORLDS, SyntheticOptions, build_synthetic_dataset
from memr1.environment import embedding_cache
from memr1.evaluation.systems import SystemPlan
from memr1.rl.checkpoints import read_metrics
from memr1.rl.prepare import write_answer_examples, write_manager_examples
from memr1.run_dir import RunDir
from memr1.tiny.weights import agent_folder

SEEDS = (7, 8, 9)
PPO = ("training.algorithm=ppo", "training.critic_learning_rate=1e-3", "training.value_coefficient=0.1")
AT_ONCE = ("answer_agent.prompt=compact_direct",)
QUICK = (
    "training.memory_manager.num_steps=1", "training.answer_agent.num_steps=1", "training.prompts_per_step=4",
    "training.num_processes=1", "training.max_validation_examples=4", "training.guards.memory_preflight=false",
)  # fmt: skip
FEW_TURNS = {
    "num_changed": 2, "num_steady": 2, "num_removed": (1, 1), "num_repeats": 1, "num_small_talk": 1, "num_sessions": 2,
}  # fmt: skip
SMALL = SyntheticOptions(num_train=2, num_validation=1, num_test=1, world=WORLDS["easy"].model_copy(update=FEW_TURNS))
Scores = dict[str, float]  # system → exact match
Curves = dict[str, list[float]]  # "system/agent" → reward of every step
Seeded = tuple[Scores, Curves]


class MeasureSeed(Protocol):
    def __call__(self, seed: int, words: Sequence[str], *, here: bool) -> Seeded: ...


def measure(options: argparse.Namespace) -> dict[str, Any]:
    set_process_defaults()
    seeds, words = (SEEDS[:1], QUICK) if options.quick else (SEEDS, ())

    def measure_once(level: str, measure_seed: MeasureSeed, seed: int) -> Seeded:
        scores, curves = found_once(options, f"{level}-{seed}", lambda: measure_seed(seed, words, here=options.quick))
        return scores, curves

    easy, full = [], []
    for seed in seeds:
        easy.append(measure_once("easy", measure_easy, seed))
        if not options.quick:
            full.append(measure_once("full", measure_full, seed))
    return {
        "seeds": list(seeds),
        "systems": summarise([scores for scores, _ in easy]),
        "full_level": summarise([scores for scores, _ in full]),
        "curves": collect([curves for _, curves in easy]),
        "full_level_curves": collect([curves for _, curves in full]),
    }


def measure_easy(seed: int, words: Sequence[str], *, here: bool) -> Seeded:
    """Every system of one seed."""
    with TemporaryDirectory() as folder:
        bench = Seed(Path(folder), "quickstart", (f"seed={seed}", *words), here=here)
        bench.score_untrained()
        grpo = bench.reinforce("grpo")
        bench.reinforce("ppo", *PPO)
        bench.score("manager_only", grpo, "memory_manager")
        bench.score("answer_only", grpo, "answer_agent")
        bench.fine_tune(grpo)
        bench.answer_at_once(grpo)
        return bench.scores, bench.curves


def measure_full(seed: int, words: Sequence[str], *, here: bool) -> Seeded:
    """The untrained systems, GRPO, and fine-tuning on the same examples."""
    with TemporaryDirectory() as folder:
        bench = Seed(Path(folder), "synthetic-full", (f"seed={seed}", *words), here=here)
        bench.score_untrained()
        bench.fine_tune(bench.reinforce("grpo"))
        return bench.scores, bench.curves


class Seed:
    """Trains and scores the systems of one seed and one level, each in a folder of its own."""

    def __init__(self, folder: Path, profile: str, words: Sequence[str], *, here: bool) -> None:
        self._folder, self._profile, self._words, self._here = folder, profile, words, here
        self.scores: Scores = {}
        self.curves: Curves = {}
        config = self._config()
        self._first = open_run(folder / "first", config)
        dataset = build_synthetic_dataset(SMALL, config.seed) if here else load_dataset(config.data, config.seed)
        write_data(self._first, dataset)
        build_training_banks(self._first, config, embedding_cache(), lambda *_: None)

    def score_untrained(self) -> None:
        """Both agents as shipped, and everything kept."""
        config = self._config()
        self._score(
            SystemPlan(name="warm_start", config=config), SystemPlan(name="always_add", config=config, always_add=True)
        )

    def reinforce(self, name: str, *options: str) -> RunDir:
        """Both agents, one after the other."""
        run, config = self._fork(name, options)
        write_manager_examples(run, config, build_embedder(embedding_cache()))
        train_agent(run, config, "memory_manager", here=self._here)
        write_answer_examples(run, config, build_embedder(embedding_cache()))
        train_agent(run, config, "answer_agent", here=self._here)
        self._keep_curves(name, run)
        self.score(name, run, *AGENTS)
        return run

    def fine_tune(self, grpo: RunDir) -> None:
        """What the same conversations and questions teach without reinforcement."""
        managers = {"sft": agent_folder("memory_manager"), "sft_answer_agent": grpo.model("memory_manager")}
        for name, manager in managers.items():
            run, config = self._fork_after(manager, name)
            learn_reference_answers(run, config)
            self.score(name, run, *AGENTS)
        run, config = self._fork("best_of_samples")
        write_manager_examples(run, config, build_embedder(embedding_cache()))
        learn_from_the_best(run, config, "memory_manager")
        write_answer_examples(run, config, build_embedder(embedding_cache()))
        learn_from_the_best(run, config, "answer_agent")
        self.score("best_of_samples", run, *AGENTS)

    def answer_at_once(self, grpo: RunDir) -> None:
        """An Answer Agent that learns without distillation, on the banks of the trained Manager."""
        run, config = self._fork_after(grpo.model("memory_manager"), "distillation_off", AT_ONCE)
        train_agent(run, config, "answer_agent", here=self._here)
        self._keep_curves("distillation_off", run)
        self.score("distillation_off", run, *AGENTS, options=AT_ONCE)

    def score(self, name: str, run: RunDir, *trained: AgentName, options: Sequence[str] = ()) -> None:
        """The pair with these agents trained, and the others as shipped."""
        models = {agent: run.model(agent) for agent in trained}
        self._score(SystemPlan(name=name, config=self._config(options), models=models))

    def _score(self, *plans: SystemPlan) -> None:
        found = score_systems(plans, self._first, self._folder / "scores", here=self._here)
        for name, score in found.items():
            print(f"{self._profile} {self._words[0]}: {name} {score:.3f}", file=sys.stderr, flush=True)
        self.scores |= found

    def _config(self, options: Sequence[str] = ()) -> RunConfig:
        return load_config(self._profile, (*self._words, *options))

    def _fork(self, name: str, options: Sequence[str] = ()) -> tuple[RunDir, RunConfig]:
        """A run directory on the common data and first banks, which then goes its own way."""
        config = self._config(options)
        run = open_run(self._folder / name, config)
        for part in ("data", "bank"):
            shutil.copytree(getattr(self._first, part), getattr(run, part))
        return run, config

    def _fork_after(self, manager: Path, name: str, options: Sequence[str] = ()) -> tuple[RunDir, RunConfig]:
        """The same with a trained Manager, its weights' folder, come as far as the examples that follow from it."""
        run, config = self._fork(name, options)
        shutil.copytree(manager, run.model("memory_manager"))
        write_answer_examples(run, config, build_embedder(embedding_cache()))
        return run, config

    def _keep_curves(self, name: str, run: RunDir) -> None:
        for agent in AGENTS:
            steps = read_metrics(run.checkpoints(agent) / "metrics.jsonl")
            rewards = [round(step["reward"], 3) for step in steps if "reward" in step]
            if rewards:
                self.curves[f"{name}/{agent}"] = rewards


def summarise(seeds: Sequence[Scores]) -> dict[str, Any]:
    """System → mean, deviation and the seeds' exact match."""
    found = {name: [scores[name] for scores in seeds] for name in (seeds[0] if seeds else ())}
    return {
        name: {
            "exact_match": {
                "mean": round(statistics.mean(scores), 3),
                "sd": round(statistics.stdev(scores) if len(scores) > 1 else 0.0, 3),
                "seeds": scores,
            }
        }
        for name, scores in found.items()
    }


def collect(seeds: Sequence[Curves]) -> dict[str, list[list[float]]]:
    """System and agent → one curve for every seed."""
    return {name: [curves[name] for curves in seeds] for name in (seeds[0] if seeds else ())}


def show(figures: Mapping[str, Any]) -> str:
    lines = ["level  system            exact match     sd"]
    for level, key in (("easy", "systems"), ("full", "full_level")):
        for name, system in figures[key].items():
            score = system["exact_match"]
            lines.append(f"{level}   {name:16}  {score['mean']:>11.3f}  {score['sd']:>5.3f}")
    return "\n".join(lines)


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """One panel for each agent and level."""
    panels = {
        f"{agent.replace('_', ' ')}, {level} level": {
            name.partition("/")[0]: runs for name, runs in figures[key].items() if name.endswith(agent)
        }
        for level, key in (("easy", "curves"), ("full", "full_level_curves"))
        for agent in AGENTS
    }
    shown = {title: curves for title, curves in panels.items() if curves}
    picture = Figure(figsize=(4.2 * len(shown), 3.6), layout="constrained")
    for axes, (title, curves) in zip(picture.subplots(1, len(shown), sharey=True), shown.items(), strict=True):
        axes.set(title=title, xlabel="rollout", ylabel="reward")
        for name, runs in curves.items():
            draw_runs(axes, name, [smoothed(run) for run in runs])
        axes.legend(loc="lower right")
    picture.savefig(path)


def draw_runs(axes: Any, name: str, runs: Sequence[Sequence[float]]) -> None:
    """The mean of the seeds, and between which values all of them lie."""
    steps = list(zip(*runs, strict=True))
    places = range(1, len(steps) + 1)
    axes.plot(places, [statistics.mean(step) for step in steps], label=name)
    axes.fill_between(places, [min(step) for step in steps], [max(step) for step in steps], alpha=0.2)


def smoothed(rewards: Sequence[float]) -> list[float]:
    """The mean of each step and the four before it: a step sees only 32 examples."""
    return [statistics.mean(rewards[max(0, step - 4) : step + 1]) for step in range(len(rewards))]


if __name__ == "__main__":
    run_benchmark("learning", __doc__, measure, show, draw)
