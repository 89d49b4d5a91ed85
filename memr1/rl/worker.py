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
from functools import partial
from pathlib import Path
from typing import Any

from memr1.config import RunConfig, read_resolved_config
from memr1.console import set_own_levels
from memr1.environment import embedding_cache
from memr1.errors import Memr1Error, TrainingError
from memr1.phases import phase_seed, roles_of
from memr1.rl.checkpoints import checkpoint_step, newest_whole_checkpoint, serve_weights
from memr1.run_dir import RunDir

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
        join_process_group()
        train(run, read_resolved_config(run.config), sys.argv[2])
    except Memr1Error as error:
        print(f"{ERROR_MARK}{error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error
    leave_process_group()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the weights are in place: a thread of a library that aborts the interpreter's end must not undo that


def train(run: RunDir, config: RunConfig, phase: str) -> None:
    """Train, then write the served weights to `run.model(phase)` in one rename."""
    import torch.distributed

    from memr1.rl.tasks import start_location

    folder, start = run.checkpoints(phase), start_location(run, config, phase)
    checkpoint = newest_whole_checkpoint(folder)
    if checkpoint is None or checkpoint_step(checkpoint) < config.agent_training(roles_of(phase)[0]).num_steps:
        trainer = _build_trainer(run, config, phase, start)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        is_staged = config.training.policies.kind == "staged"
        serve_weights(folder, run.model(phase), (lambda path: path) if is_staged else partial(_merge, start))


def _build_trainer(run: RunDir, config: RunConfig, phase: str, start: str | Path):  # type: ignore[no-untyped-def]
    from memr1.bank.embedding import build_loaded_embedder
    from memr1.rl.credit.task import load_trajectory_task
    from memr1.rl.credit.trainer import build_trajectory_trainer
    from memr1.rl.tasks import build_frozen_answer_agent, load_single_turns, load_task
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
        partner = build_frozen_answer_agent(run, config, phase)
        task = load_trajectory_task(run, config, embedder, partner, settings["seed"])
        return build_trajectory_trainer(start, task, load_single_turns(run, config, phase), **settings)
    return build_trainer(start, *load_task(run, config, phase), **settings)


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


def join_process_group() -> None:
    """Meet the other ranks, as torchrun's variables say. Before any TrainingArguments exist: see above."""
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


def leave_process_group() -> None:
    """The end of what `join_process_group` began; nothing, if it did not."""
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
