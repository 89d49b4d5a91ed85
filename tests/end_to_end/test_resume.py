"""A training that is killed and started again ends where one that was never stopped ends, to the bit.

Every kill is a SIGKILL of the launching process, of torchrun and of rank 0 at one exact moment, planted by
tests/end_to_end/killing; the other rank must end by itself.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from memr1.agents.prompting import render_answer_prompt
from memr1.config import load_config
from memr1.records import write_json, write_jsonl
from memr1.rl.checkpoints import checkpoint_step, newest_whole_checkpoint, read_metrics
from memr1.rl.examples import AnswerExample
from memr1.rl.prepare import VALIDATION
from memr1.run_dir import RunDir, file_digest
from memr1.tiny.weights import agent_folder
from tests.builders import entry
from tests.processes import wait_until
from tests.training_runs import ranks_of

pytestmark = pytest.mark.slow

AGENT = "answer_agent"
# Checkpoints fall due after steps 2, 4 and 6, and after the last one, 7. Of the 5 examples a step shows 2: the order of
# the third round is needed to the bit, too. PPO's rollouts serve two steps.
OPTIONS = (
    "bank.kind=in_memory",
    "training.prompts_per_step=2",
    "training.completions_per_prompt=8",
    "training.micro_batch=8",
    "training.reward=token_f1",
    "training.checkpoint_every=2",
    "training.answer_agent.num_steps=7",
)
KINDS: Mapping[str, tuple[str, ...]] = {
    "grpo": ("training.num_processes=2",),
    "ppo": ("training.num_processes=1", "training.algorithm=ppo", "training.critic_learning_rate=1e-3"),
    "grpo_lora": ("training.num_processes=1", "training.lora.rank=4"),
    "ppo_lora": ("training.num_processes=2", "training.algorithm=ppo", "training.lora.rank=4"),
}
KILLS = {  # where it is planted, and the checkpoint that is left
    "before_a_checkpoint": ("open metrics.jsonl 3", 2),
    "before_a_checkpoint_is_sealed": ("os.rename checkpoint-4/DONE.json 1", 2),
    "after_a_checkpoint": ("open metrics.jsonl 5", 4),
    "before_the_weights_are_in_place": ("os.rename answer_agent/model 1", 7),
}
LAUNCH = """
import signal, sys
from pathlib import Path
from memr1.config import read_resolved_config
from memr1.rl.launch import launch_training
from memr1.run_dir import RunDir
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever it was where this was started
run = RunDir(Path(sys.argv[1]))
launch_training(run, read_resolved_config(run.config), sys.argv[2], run.logs / "train.log")
"""


def prepared_run(root: Path, kind: str, *options: str) -> RunDir:
    """A run directory that holds what the training of the Answer Agent reads."""
    run = RunDir(root)
    config = load_config("quickstart", [*OPTIONS, *KINDS[kind], *options])
    write_json(run.config, config.model_dump(mode="json"))
    write_jsonl(run.examples(AGENT) / "examples.jsonl", map(example, range(5)))
    write_jsonl(run.examples(AGENT) / VALIDATION, map(example, range(5, 8)))
    return run


def example(number: int) -> AnswerExample:
    """A question about a changed fact: the shipped agent is in two minds about those."""
    name = ("Ann", "Joe", "Omar", "Peter", "Marta", "Kai", "Lena", "Silvia")[number]
    memories = [
        entry("1", f"{name} lives in Rome, earlier Oslo"),
        entry("2", f"{name} drives a Fiat"),
        entry("3", f"{name} lives in Bern"),
    ]
    question = f"Where did {name} live before?" if number % 2 else f"Where does {name} live?"
    return AnswerExample(
        id=f"q{number}",
        prompt=render_answer_prompt("compact", memories, question),
        question=question,
        answer="Oslo" if number % 2 else "Bern",
        category=4,
        memories=("1", "2", "3"),
    )


def start(run: RunDir, kill: str = "") -> subprocess.Popen[bytes]:
    """Train in a process of its own, as a flow does."""
    folders = os.pathsep.join([str(Path(__file__).parent / "killing"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": folders, "MEMR1_TEST_KILL": kill}
    return subprocess.Popen([sys.executable, "-c", LAUNCH, str(run.root), AGENT], env=environment)


def launch(run: RunDir, kill: str = "") -> int:
    """Train until it ends; the exit code."""
    return start(run, kill).wait(timeout=900)


def outcome(run: RunDir) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Digests of the last weights and of those served, and the metrics of all steps.

    Without the time they took, and without the sampler's gap: a process that begins looks at it in its first steps.
    """
    folder = run.checkpoints(AGENT)
    files = [path for name in ("model", "checkpoint-7") for path in (folder / name).glob("*.safetensors")]
    weights = {str(path.relative_to(folder)): file_digest(path) for path in files}
    steps = read_metrics(folder / "metrics.jsonl")
    return weights, [
        {name: value for name, value in step.items() if name not in ("seconds", "sampler_gap")} for step in steps
    ]


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    """One run of each kind that is needed, trained in one go."""
    return {}


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_resumes_to_the_same_weights(
    kind: str, kill: str, never_stopped: dict[str, RunDir], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if kind not in never_stopped:
        never_stopped[kind] = prepared_run(tmp_path_factory.mktemp(kind), kind)
        assert launch(never_stopped[kind]) == 0
    moment, left = KILLS[kill]
    run = prepared_run(tmp_path, kind)
    assert launch(run, moment) == -9
    wait_until(lambda: not ranks_of(run), seconds=20)
    checkpoint = newest_whole_checkpoint(run.checkpoints(AGENT))
    assert checkpoint is not None and checkpoint_step(checkpoint) == left
    assert not run.model(AGENT).exists()
    assert launch(run) == 0
    weights, steps = outcome(run)
    assert (weights, steps) == outcome(never_stopped[kind])
    assert len(weights) == 2 and set(weights.values()).isdisjoint(
        [file_digest(agent_folder(AGENT) / "model.safetensors")]
    )
    assert len({step["reward"] for step in steps if "reward" in step}) > 1


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_no_rank_outlives_the_process_that_launched_it(algorithm: str, told: signal.Signals, tmp_path: Path) -> None:
    run = prepared_run(tmp_path, algorithm, "training.answer_agent.num_steps=1000", "training.num_processes=2")
    flow = start(run)
    try:
        wait_until(lambda: len(read_metrics(run.checkpoints(AGENT) / "metrics.jsonl")) > 0, seconds=300)
        assert len(ranks_of(run)) >= 2
    finally:
        flow.send_signal(told)
        flow.wait(timeout=60)
    wait_until(lambda: not ranks_of(run), seconds=20)
