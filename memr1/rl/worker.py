"""One training process: `torchrun -m memr1.rl.worker RUN_DIR AGENT`. It talks to the flow only through files and its
exit code (memr1.rl.launch starts it).
"""

# DeepSpeed must initialise the process group before transformers' TrainingArguments exist: else ZeRO-3 refuses its
# batch sizes. So this module imports in that order, and does its work only when run.
import logging
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from memr1.config import AgentName, RunConfig, read_resolved_config
from memr1.environment import embedding_cache
from memr1.errors import Memr1Error
from memr1.records import read_jsonl
from memr1.rl.checkpoints import newest_whole_checkpoint
from memr1.run_dir import RunDir

log = logging.getLogger(__name__)
PARENT_VARIABLE = "MEMR1_PARENT_PID"
ERROR_MARK = "memr1-error: "


def main() -> None:
    """Train one agent of one run, resuming from its newest whole checkpoint."""
    _end_with_parent()
    run, agent = RunDir(Path(sys.argv[1])), sys.argv[2]
    if agent not in ("memory_manager", "answer_agent"):
        raise SystemExit(f"unknown agent {agent!r}")
    _join_process_group()
    try:
        train(run, read_resolved_config(run.config), agent)  # type: ignore[arg-type]  # narrowed above
    except Memr1Error as error:
        print(f"{ERROR_MARK}{error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error
    _leave_process_group()


def train(run: RunDir, config: RunConfig, agent: AgentName) -> None:
    """Train, then write the served weights to `run.model(agent)` in one rename."""
    folder = run.checkpoints(agent)
    trainer = _build_trainer(run, config, agent)
    checkpoint = newest_whole_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    partial = folder / "model.partial"
    trainer.save_model(str(partial))
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        shutil.rmtree(run.model(agent), ignore_errors=True)
        os.replace(partial, run.model(agent))


def _build_trainer(run: RunDir, config: RunConfig, agent: AgentName):  # type: ignore[no-untyped-def]
    from memr1.agents.generators import model_location
    from memr1.bank.embedding import build_embedder
    from memr1.rl.credit.task import load_task
    from memr1.rl.credit.trainer import build_trajectory_trainer
    from memr1.rl.trainer import build_trainer

    model = model_location(config.agent(agent).generator, agent)
    settings: dict[str, Any] = {
        "agent": config.agent(agent),
        "schedule": config.agent_training(agent),
        "training": config.training,
        "deepspeed": deepspeed_config(config.training.deepspeed),
        "folder": run.checkpoints(agent),
        "seed": config.seed,
    }
    if agent == "answer_agent":
        return build_trainer(model, *_answer_task(run, config), **settings)
    if config.training.credit.kind == "local_global":
        task = load_task(run, config, build_embedder(embedding_cache()))
        return build_trajectory_trainer(model, task, **settings)
    return build_trainer(model, *_manager_task(run, config), **settings)


def deepspeed_config(name: str) -> Path:
    """The file of deepspeed_configs/ with this name."""
    return Path(__file__).parents[2] / "deepspeed_configs" / f"{name}.json"


def _manager_task(run: RunDir, config: RunConfig):  # type: ignore[no-untyped-def]
    from memr1.agents.answer_agent import AnswerAgent
    from memr1.agents.generators import build_generator
    from memr1.bank.embedding import build_embedder
    from memr1.bank.operation import JournalRecord
    from memr1.data.stored import read_dataset
    from memr1.rl.examples import ManagerExample, bank_at
    from memr1.rl.rollout import ManagerReward

    examples = list(read_jsonl(run.examples("memory_manager") / "examples.jsonl", ManagerExample))
    journals: dict[str, list[JournalRecord]] = {}
    for record in read_jsonl(run.bank / "operations.jsonl", JournalRecord):
        journals.setdefault(record.scope, []).append(record)
    settings = config.answer_agent
    reward = ManagerReward(
        examples,
        {item.id: bank_at(journals.get(item.scope, []), item.scope, item.bank_sequence) for item in examples},
        {conversation.id: conversation.speakers for conversation in read_dataset(run).conversations},
        AnswerAgent(build_generator(settings.generator, "answer_agent"), settings.prompt, settings.max_new_tokens),
        build_embedder(embedding_cache()),
        config.retrieval,
        config.training.reward,
        config.training.retention_questions,
    )
    return [{"id": item.id, "prompt": item.prompt} for item in examples], reward


def _answer_task(run: RunDir, config: RunConfig):  # type: ignore[no-untyped-def]
    from memr1.rl.examples import AnswerExample
    from memr1.rl.rollout import AnswerReward

    examples = list(read_jsonl(run.examples("answer_agent") / "examples.jsonl", AnswerExample))
    return [{"id": item.id, "prompt": item.prompt} for item in examples], AnswerReward(examples, config.training.reward)


def _join_process_group() -> None:
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False)


def _leave_process_group() -> None:
    import torch.distributed

    # Without this a run may abort after saving ("terminate called without an active exception").
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    """A flow that is killed cannot tell its ranks: each watches for itself, so that none writes on unseen."""
    parent = int(os.environ.get(PARENT_VARIABLE, "0"))
    if parent:
        threading.Thread(target=_watch, args=(parent, os.getppid()), daemon=True).start()


def _watch(flow_pid: int, launcher_pid: int) -> None:
    while os.getppid() == launcher_pid and _is_alive(flow_pid):
        time.sleep(0.5)
    os._exit(143)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
