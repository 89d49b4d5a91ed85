"""Stage 3, once per agent: 1_data and 2_bank → 3_examples/<agent> and 4_checkpoints/<agent>.

The Memory Manager learns with the Answer Agent frozen; then the Answer Agent learns on the banks that the trained
Memory Manager builds.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from prefect import flow

from flows import work
from flows.child import in_child
from flows.stages import finish_stage
from flows.work import Counts
from memr1.config import AgentName
from memr1.console import show_progress
from memr1.run_dir import StageName
from memr1.run_start import OpenRun

STAGE_OF: dict[AgentName, StageName] = {
    "memory_manager": "train_memory_manager",
    "answer_agent": "train_answer_agent",
}


@flow(name="train", flow_run_name="train-{agent}")
def train(run_dir: Path, agent: AgentName) -> None:
    """Write the agent's examples, then train it in processes of its own."""
    finish_stage(run_dir, STAGE_OF[agent], partial(_train, agent))


def _train(agent: AgentName, opened: OpenRun) -> Counts:
    from memr1.registry.tracking import TrainingStream
    from memr1.rl.checkpoints import read_metrics
    from memr1.rl.launch import launch_training

    stream = TrainingStream(opened.run, opened.config, agent)
    num_examples = _write_examples(agent, opened)
    num_steps = opened.config.agent_training(agent).num_steps
    with show_progress(f"training the {agent}") as on_progress:

        def on_step(metrics: Mapping[str, float]) -> None:
            stream.send(metrics)
            on_progress(int(metrics["step"]), num_steps, _figures(metrics))

        log_path = opened.logs / f"train_{agent}.log"
        summary = launch_training(opened.run, opened.config, agent, log_path, on_step)
    stream.send_all(read_metrics(opened.run.checkpoints(agent) / "metrics.jsonl"))
    rewards = {"first_reward": summary.first_reward, "last_reward": summary.last_reward}
    counts = {"num_examples": num_examples, "num_steps": summary.num_steps}
    return {**counts, **{name: round(value, 3) for name, value in rewards.items()}}


def _write_examples(agent: AgentName, opened: OpenRun) -> int:
    written = opened.run.examples(agent) / "examples.jsonl"
    if written.exists():  # whole: it is written atomically, and dropped when its inputs change
        return sum(1 for _ in written.open(encoding="utf-8"))
    write = work.write_manager_examples if agent == "memory_manager" else work.write_answer_examples
    return int(in_child(write, "reading turns")(opened)["num_examples"])


def _figures(metrics: Mapping[str, float]) -> str:
    figures = {"reward": metrics["reward"], "KL": metrics.get("kl"), "tokens": metrics.get("completion_tokens")}
    return ", ".join(f"{name} {value:.3g}" for name, value in figures.items() if value is not None)
