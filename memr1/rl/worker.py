"""One training process: `torchrun -m memr1.rl.worker RUN_DIR PHASE`. It talks to the flow only through files and its
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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memr1.config import RunConfig, read_resolved_config
from memr1.console import set_own_levels
from memr1.environment import embedding_cache
from memr1.errors import Memr1Error, TrainingError
from memr1.phases import phase_seed, roles_of
from memr1.records import AnyRecord, read_jsonl
from memr1.rl.checkpoints import checkpoint_step, newest_whole_checkpoint, serve_weights
from memr1.run_dir import RunDir

if TYPE_CHECKING:
    from memr1.rl.examples import AnswerExample, ManagerExample

log = logging.getLogger(__name__)
PARENT_VARIABLE = "MEMR1_PARENT_PID"
ERROR_MARK = "memr1-error: "


def main() -> None:
    """Train one phase of one run, resuming from its newest whole checkpoint."""
    _end_with_parent()
    logging.basicConfig(format="%(name)s: %(message)s")
    set_own_levels()
    run = RunDir(Path(sys.argv[1]))
    try:
        _join_process_group()
        train(run, read_resolved_config(run.config), sys.argv[2])
    except Memr1Error as error:
        print(f"{ERROR_MARK}{error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error
    _leave_process_group()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the weights are in place: a thread of a library that aborts the interpreter's end must not undo that


def train(run: RunDir, config: RunConfig, phase: str) -> None:
    """Train, then write the served weights to `run.model(phase)` in one rename."""
    import torch.distributed

    folder, start = run.checkpoints(phase), start_location(run, config, phase)
    checkpoint = newest_whole_checkpoint(folder)
    if checkpoint is None or checkpoint_step(checkpoint) < config.agent_training(roles_of(phase)[0]).num_steps:
        trainer = _build_trainer(run, config, phase, start)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        is_staged = config.training.policies.kind == "staged"
        serve_weights(folder, run.model(phase), (lambda path: path) if is_staged else partial(_merge, start))


def start_location(run: RunDir, config: RunConfig, phase: str) -> str | Path:
    """The weights that a phase starts from, a folder or hub id: its policy's newest, or the configured ones.

    A shared policy starts from the Memory Manager's model, which is the Answer Agent's too, except for "tiny".
    """
    from memr1.agents.generators import model_location

    first = roles_of(phase)[0]
    trained = run.models(config, before=phase).get(first)
    return trained or model_location(config.agent(first).generator, first)


def _build_trainer(run: RunDir, config: RunConfig, phase: str, start: str | Path):  # type: ignore[no-untyped-def]
    from memr1.bank.embedding import build_loaded_embedder
    from memr1.rl.credit.task import load_task
    from memr1.rl.credit.trainer import build_trajectory_trainer
    from memr1.rl.trainer import build_trainer

    roles = roles_of(phase)
    settings: dict[str, Any] = {
        "agent": max((config.agent(role) for role in roles), key=lambda agent: agent.max_new_tokens),
        "schedule": config.agent_training(roles[0]),
        "training": config.training,
        "deepspeed": deepspeed_config(config.training.deepspeed),
        "folder": run.checkpoints(phase),
        "seed": phase_seed(config, phase),
    }
    if config.training.credit.kind == "local_global" and roles == ("memory_manager",):
        embedder = build_loaded_embedder(embedding_cache())
        task = load_task(run, config, embedder, _frozen_answer_agent(run, config, phase), settings["seed"])
        return build_trajectory_trainer(start, task, _single_turns(run, config, phase), **settings)
    return build_trainer(start, *_task(run, config, phase), **settings)


def _frozen_answer_agent(run: RunDir, config: RunConfig, phase: str):  # type: ignore[no-untyped-def]
    """The Answer Agent that a Memory Manager is rewarded through: the pair's before the phase."""
    from memr1.agents.answer_agent import AnswerAgent
    from memr1.agents.generators import build_generator

    settings, frozen = config.answer_agent, run.models(config, before=phase).get("answer_agent")
    generator = build_generator(settings.generator, "answer_agent", frozen)
    return AnswerAgent(generator, settings.prompt, settings.max_new_tokens)


def deepspeed_config(name: str) -> Path:
    """The file of deepspeed_configs/ with this name."""
    return Path(__file__).parents[2] / "deepspeed_configs" / f"{name}.json"


def _merge(start: str | Path, trained: Path) -> Path:
    """Whole weights: what another phase starts from, or two roles share, must not hang on a base of its own."""
    from memr1.agents.generators import is_adapter
    from memr1.agents.transformers_generator import merge_adapter

    if not is_adapter(trained):
        return trained
    merged = trained.with_name("merged.partial")
    shutil.rmtree(merged, ignore_errors=True)
    merge_adapter(start, trained, merged)
    shutil.rmtree(trained)
    return merged


def _task(run: RunDir, config: RunConfig, phase: str):  # type: ignore[no-untyped-def]
    """Rows of `id` and `prompt` to train and to validate on, and the reward of their completions."""
    from memr1.rl.shared_policy import share_tasks

    build = {"memory_manager": _manager_task, "answer_agent": _answer_task}
    tasks = {role: build[role](run, config, phase) for role in roles_of(phase)}
    return share_tasks(tasks) if len(tasks) > 1 else next(iter(tasks.values()))


def _single_turns(run: RunDir, config: RunConfig, phase: str):  # type: ignore[no-untyped-def]
    """What guards a training by trajectories, which itself reads no examples: those that a flow writes all the same."""
    if (run.examples(phase, "memory_manager") / "examples.jsonl").exists():
        return _manager_task(run, config, phase)
    log.warning("there are no examples: nothing compares the sampler with the trainer, and the last step is served")
    return None


def _manager_task(run: RunDir, config: RunConfig, phase: str):  # type: ignore[no-untyped-def]
    from memr1.bank.embedding import build_loaded_embedder
    from memr1.data.stored import read_dataset
    from memr1.rl.examples import ManagerExample, bank_at
    from memr1.rl.judged_answers import build_score
    from memr1.rl.prior_banks import read_prior_banks
    from memr1.rl.rollout import ManagerReward

    train, validation = _read_examples(run.examples(phase, "memory_manager"), ManagerExample)
    examples = [*train, *validation]
    journals = read_prior_banks(run, config, phase)
    reward = ManagerReward(
        examples,
        {item.id: bank_at(journals.get(item.scope, []), item.scope, item.bank_sequence) for item in examples},
        {conversation.id: conversation.speakers for conversation in read_dataset(run).conversations},
        _frozen_answer_agent(run, config, phase),
        build_loaded_embedder(embedding_cache()),
        config.retrieval,
        build_score(config.training),
        config.training.extra_rewards,
        config.training.retention_questions,
    )
    return _rows(train), _rows(validation), reward


def _answer_task(run: RunDir, config: RunConfig, phase: str):  # type: ignore[no-untyped-def]
    from memr1.rl.examples import AnswerExample
    from memr1.rl.judged_answers import build_score
    from memr1.rl.rollout import AnswerReward

    train, validation = _read_examples(run.examples(phase, "answer_agent"), AnswerExample)
    reward = AnswerReward([*train, *validation], build_score(config.training), config.training.extra_rewards)
    return _rows(train), _rows(validation), reward


def _read_examples(folder: Path, kind: type[AnyRecord]) -> tuple[list[AnyRecord], list[AnyRecord]]:
    train, validation = folder / "examples.jsonl", folder / "validation_examples.jsonl"
    return list(read_jsonl(train, kind)), list(read_jsonl(validation, kind)) if validation.exists() else []


def _rows(examples: "Sequence[ManagerExample | AnswerExample]") -> list[dict[str, str]]:
    return [{"id": item.id, "prompt": item.prompt} for item in examples]


def _join_process_group() -> None:
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    if torch.cuda.is_available():
        _take_gpu(int(os.environ["LOCAL_RANK"]), torch.cuda.device_count())
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False)


def _take_gpu(place: int, num_gpus: int) -> None:
    """One GPU for each process of this machine, for the frozen partner too, which is loaded before the trainer is."""
    import torch

    if place >= num_gpus:
        raise TrainingError(
            f"this machine shows {num_gpus} GPU(s), fewer than its training processes: set training.num_processes to "
            "the number of GPUs, or hide them with CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    torch.cuda.set_device(place)


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
