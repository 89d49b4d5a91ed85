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
rewards of every training, step by step. --quick runs one seed on few conversations and few steps: it shows that the
benchmark works, and teaches nothing. The curves are drawn beside the figures, as learning.svg.

answer_only's agent has learnt on the trained Manager's banks, and is asked over the untrained one's.

The whole takes hours on two cores. Finished seeds are kept in a folder beside the figures, one for each commit: the
same command goes on where it was stopped. In a checkout with changes nothing is kept.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fine_tuning import learn_from_the_best, learn_reference_answers
from harness import CHECKOUT, run_benchmark
from matplotlib.figure import Figure

from memr1.bank.embedding import build_embedder
from memr1.config import AGENTS, AgentName, RunConfig, load_config
from memr1.data.stored import read_dataset
from memr1.environment import embedding_cache, set_environment_defaults
from memr1.evaluation.launch import run_systems
from memr1.evaluation.systems import SystemPlan
from memr1.machine import find_commit
from memr1.records import write_json
from memr1.rl.checkpoints import read_metrics
from memr1.rl.launch import launch_training
from memr1.rl.prepare import write_answer_examples, write_manager_examples
from memr1.run_dir import RunDir
from memr1.tiny.weights import agent_folder

STARTED_WITH = dict(os.environ)  # without memr1's defaults, which name the folders of another home
SEEDS = (7, 8, 9)
PPO = ("training.algorithm=ppo", "training.critic_learning_rate=1e-3", "training.value_coefficient=0.1")
AT_ONCE = ("answer_agent.prompt=compact_direct",)
QUICK = (
    "data.num_train=6", "data.num_validation=1", "data.num_test=3", "training.memory_manager.num_steps=2",
    "training.answer_agent.num_steps=2", "training.prompts_per_step=4",
)  # fmt: skip
Scores = dict[str, float]  # system → exact match
Curves = dict[str, list[float]]  # "system/agent" → reward of every step
Seeded = tuple[Scores, Curves]
MeasureSeed = Callable[[int, Sequence[str]], Seeded]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    set_environment_defaults()
    seeds, words = (SEEDS[:1], QUICK) if options.quick else (SEEDS, ())
    amount = "quick" if options.quick else "whole"
    commit = find_commit(CHECKOUT) or ""
    version = commit.replace("+changes", f"+{os.getpid()}")  # other changes may have the same name
    kept = options.out.with_name(f"{options.out.stem}.{amount}.{version}")
    easy, full = [], []
    for seed in seeds:
        easy.append(measure_once(kept / f"easy-{seed}.json", measure_easy, seed, words))
        if not options.quick:
            full.append(measure_once(kept / f"full-{seed}.json", measure_full, seed, words))
    return {
        "seeds": list(seeds),
        "systems": summarise([scores for scores, _ in easy]),
        "full_level": summarise([scores for scores, _ in full]),
        "curves": collect([curves for _, curves in easy]),
        "full_level_curves": collect([curves for _, curves in full]),
    }


def measure_once(path: Path, measure_seed: MeasureSeed, seed: int, words: Sequence[str]) -> Seeded:
    """What was found before under this name, or what is found now."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, measure_seed(seed, words))
    scores, curves = json.loads(path.read_text(encoding="utf-8"))
    return scores, curves


def measure_easy(seed: int, words: Sequence[str]) -> Seeded:
    """Every system of one seed."""
    with TemporaryDirectory() as folder:
        bench = Seed(Path(folder), "quickstart", (f"seed={seed}", *words))
        grpo = bench.run_pipeline("grpo")
        bench.run_pipeline("ppo", *PPO)
        bench.score("manager_only", grpo, "memory_manager")
        bench.score("answer_only", grpo, "answer_agent")
        bench.fine_tune(grpo)
        bench.answer_at_once("distillation_off", grpo)
        return bench.scores, bench.curves


def measure_full(seed: int, words: Sequence[str]) -> Seeded:
    """The untrained systems, GRPO, and fine-tuning on the same examples."""
    with TemporaryDirectory() as folder:
        bench = Seed(Path(folder), "synthetic-full", (f"seed={seed}", *words))
        grpo = bench.run_pipeline("grpo")
        bench.fine_tune(grpo)
        return bench.scores, bench.curves


class Seed:
    """Trains and scores the systems of one seed and one level, each in a folder of its own."""

    def __init__(self, folder: Path, profile: str, words: Sequence[str]) -> None:
        self._folder, self._profile, self._words = folder, profile, words
        self.scores: Scores = {}
        self.curves: Curves = {}

    def run_pipeline(self, name: str, *options: str) -> RunDir:
        """A whole run, with a home (registry, caches) of its own."""
        folder = self._folder / name
        words = [word for option in (*self._words, *options) for word in ("--set", option)]
        environment = {**STARTED_WITH, "MEMR1_HOME": str(folder / "home")}
        memr1 = Path(sys.executable).with_name("memr1")
        command = [str(memr1), "run", self._profile, "--run-dir", str(folder / "run"), *words]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        run = RunDir(folder / "run")
        report = json.loads((run.evaluation / "report.json").read_text(encoding="utf-8"))
        for system in ("warm_start", "always_add"):
            self.scores.setdefault(system, report["systems"][system]["exact_match"])
        self._tell(name, report["systems"]["trained"]["exact_match"])
        self._keep_curves(name, run)
        return run

    def score(self, name: str, run: RunDir, *trained: AgentName, options: Sequence[str] = ()) -> None:
        """The pair with these agents trained, and the others as shipped."""
        config, dataset = load_config(self._profile, (*self._words, *options)), read_dataset(run)
        plan = SystemPlan(name=name, config=config, models={agent: run.model(agent) for agent in trained})
        folder = run.root / "scores"
        scores = run_systems([plan], dataset, run, dataset.splits.test, folder, folder, vector_cache=embedding_cache())
        self._tell(name, scores[name].exact_match)

    def fine_tune(self, grpo: RunDir) -> None:
        """What the same conversations and questions teach without reinforcement."""
        managers = {"sft": agent_folder("memory_manager"), "sft_answer_agent": grpo.model("memory_manager")}
        for name, manager in managers.items():
            run, config = self._fork(name, grpo, manager)
            learn_reference_answers(run, config)
            self.score(name, run, *AGENTS)
        run, config = self._fork("best_of_samples", grpo)
        write_manager_examples(run, config, build_embedder(embedding_cache()))
        learn_from_the_best(run, config, "memory_manager")
        write_answer_examples(run, config, build_embedder(embedding_cache()))
        learn_from_the_best(run, config, "answer_agent")
        self.score("best_of_samples", run, *AGENTS)

    def answer_at_once(self, name: str, grpo: RunDir) -> None:
        """An Answer Agent that learns without distillation, on the banks of the trained Manager."""
        run, config = self._fork(name, grpo, grpo.model("memory_manager"), AT_ONCE)
        launch_training(run, config, "answer_agent", run.logs / "train.log")
        self.score(name, run, *AGENTS, options=AT_ONCE)
        self._keep_curves(name, run)

    def _fork(
        self, name: str, source: RunDir, manager: Path | None = None, options: Sequence[str] = ()
    ) -> tuple[RunDir, RunConfig]:
        """A run directory on another one's data and first banks, which then goes its own way.

        With a `manager`, its weights, it has come as far as the Answer Agent's examples, over banks that it built.
        """
        run, config = RunDir(self._folder / name), load_config(self._profile, (*self._words, *options))
        os.environ["MEMR1_HOME"] = str(run.root / "home")
        write_json(run.config, config.model_dump(mode="json"))
        for part in ("data", "bank"):
            shutil.copytree(getattr(source, part), getattr(run, part))
        if manager is not None:
            shutil.copytree(manager, run.model("memory_manager"))
            write_answer_examples(run, config, build_embedder(embedding_cache()))
        return run, config

    def _tell(self, name: str, exact_match: float) -> None:
        self.scores[name] = exact_match
        print(f"{self._profile} {self._words[0]}: {name} {exact_match:.3f}", file=sys.stderr, flush=True)

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
