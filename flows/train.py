"""Stage 3, once per phase: 1_data and 2_bank → 3_examples/<phase> and 4_checkpoints/<phase>.

The Memory Manager learns with the Answer Agent frozen; then the Answer Agent learns on the banks that the trained
Memory Manager builds. `training.policies` may have them take turns, or be one (memr1.phases).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from prefect import flow

from flows import work
from flows.child import in_child
from flows.stages import finish_stage
from flows.work import Counts
from memr1.console import show_progress
from memr1.phases import roles_of, stage_of
from memr1.run_start import OpenRun


@flow(name="train", flow_run_name="train-{phase}")
def train(run_dir: Path, phase: str) -> None:
    """Write the phase's examples, then train its policy in processes of its own."""
    finish_stage(run_dir, stage_of(phase), partial(_train, phase))


def _train(phase: str, opened: OpenRun) -> Counts:
    from memr1.registry.tracking import TrainingStream
    from memr1.rl.checkpoints import read_metrics
    from memr1.rl.launch import launch_training

    stream = TrainingStream(opened.run, opened.config, phase)
    num_examples = _write_examples(phase, opened)
    num_steps = opened.config.agent_training(roles_of(phase)[0]).num_steps
    with show_progress(f"training {phase}") as on_progress:

        def on_step(metrics: Mapping[str, float]) -> None:
            stream.send(metrics)
            on_progress(int(metrics["step"]), num_steps, _figures(metrics))

        log_path = opened.logs / f"{stage_of(phase)}.log"
        summary = launch_training(opened.run, opened.config, phase, log_path, on_step)
    stream.send_all(read_metrics(opened.run.checkpoints(phase) / "metrics.jsonl"))
    stream.send_served(summary.served_step)
    rewards = {"first_reward": summary.first_reward, "last_reward": summary.last_reward}
    if summary.validation_reward is not None:
        rewards["validation_reward"] = summary.validation_reward
    counts = {"num_examples": num_examples, "num_steps": summary.num_steps, "num_left_out": summary.num_left_out}
    return {**counts, "served_step": summary.served_step, **{name: round(value, 3) for name, value in rewards.items()}}


def _write_examples(phase: str, opened: OpenRun) -> int:
    files = [opened.run.examples(phase, role) / "examples.jsonl" for role in roles_of(phase)]
    if all(file.exists() for file in files):  # whole: written atomically, and dropped when their inputs change
        return sum(1 for file in files for _ in file.open(encoding="utf-8"))
    return int(in_child(work.write_examples, "reading turns", phase)(opened)["num_examples"])


def _figures(metrics: Mapping[str, float]) -> str:
    figures = {
        "reward": metrics.get("reward"),
        "validation": metrics.get("validation_reward"),
        "KL": metrics.get("kl"),
        "tokens": metrics.get("completion_tokens"),
    }
    return ", ".join(f"{name} {value:.3g}" for name, value in figures.items() if value is not None)
