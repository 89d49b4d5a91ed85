"""Ways to run one and the same small training, each in processes of its own, forked from one that knows the libraries.

The model is random, the reward a number made from a completion's letters: what is trained means nothing, but every
part of a step takes part in it.
"""

import json
import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from memr1.config import AgentConfig
from memr1.rl.worker import deepspeed_config
from memr1.training_options import AgentTraining, GrpoTraining, GuardConfig, LoraConfig, PpoTraining, TrainingConfig

PROMPTS_PER_STEP, GROUP, NEW_TOKENS, NUM_STEPS = 4, 4, 12, 3
PROMPTS = [f"{word} {'and so on ' * number}" for number, word in enumerate(("Ann", "Bo", "Cy", "Di", "Ed", "Flo") * 3)]
UNSCORED = "e5"  # nothing can be asked about this example

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["deepspeed", "memr1.rl.trainer"])


@dataclass(frozen=True)
class Way:
    """One way to run the training."""

    algorithm: str = "grpo"
    deepspeed: str | None = None
    num_processes: int = 1
    micro_batch: int = PROMPTS_PER_STEP * GROUP
    shares_prompts: bool = True
    lora: bool = False
    num_steps: int = NUM_STEPS
    checkpoint_every: int = 100

    def __str__(self) -> str:
        words = [self.algorithm, self.deepspeed or "torch", f"{self.num_processes}x{self.micro_batch}"]
        return "-".join(words + ["lora"] * self.lora + ["unshared"] * (not self.shares_prompts))


@dataclass(frozen=True)
class Outcome:
    """What a way came to: a loss and a gradient norm for every optimiser step, and the weights after the last."""

    losses: list[float]
    gradient_norms: list[float]
    weights: dict[str, torch.Tensor]


def run_way(way: Way, model: Path, folder: Path, seconds: float = 900.0) -> Outcome:
    """Train, each rank in a process of its own; an AssertionError when one fails or they do not end.

    Offloading compiles DeepSpeed's Adam at its first use on a machine, which takes minutes.
    """
    run_ranks(way.num_processes, _train, way, model, folder, seconds=seconds)
    name = "adapter_model.safetensors" if way.lora else "model.safetensors"
    steps = [line for line in json.loads((folder / "history.json").read_text()) if "loss" in line]
    losses, norms = ([line[key] for line in steps] for key in ("loss", "grad_norm"))
    return Outcome(losses, norms, load_file(folder / "model" / name))


def run_ranks(num_processes: int, work: Callable[..., None], *arguments: object, seconds: float = 900.0) -> None:
    """Call `work(*arguments)` in the processes of a torchrun; an AssertionError when one fails or they do not end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = [(rank, num_processes, port) for rank in range(num_processes)]
    ranks = [forks.Process(target=_run_rank, args=(place, work, arguments)) for place in places]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(seconds)
    ended = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
    assert ended == [0] * num_processes, f"{arguments[0]}: exit codes {ended} (None: it did not end)"


def _run_rank(place: tuple[int, int, int], work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    rank, num_processes, port = place
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in variables.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    work(*arguments)


def training_options(way: Way) -> TrainingConfig:
    """The `[training]` section of a way."""
    options: dict[str, Any] = {
        "prompts_per_step": PROMPTS_PER_STEP,
        "completions_per_prompt": GROUP,
        "micro_batch": way.micro_batch,
        "num_processes": way.num_processes,
        "lora": LoraConfig(rank=4, alpha=8) if way.lora else None,
        "checkpoint_every": way.checkpoint_every,
        "guards": GuardConfig(memory_preflight=False, patience=2),
    }
    if way.algorithm == "ppo":
        return PpoTraining(algorithm="ppo", critic_learning_rate=1e-2, **options)
    return GrpoTraining(**options)


def reward(
    completions: Sequence[Any], example_id: Sequence[str], log_metric: Any = None, **_: object
) -> list[float | None]:
    """A number between 0 and 1 for each completion."""
    texts = [completion[0]["content"] for completion in completions]
    return [
        None if key == UNSCORED else sum(text.encode()) % 7 / 6 for key, text in zip(example_id, texts, strict=True)
    ]


def token_log_probs(model: Any) -> torch.Tensor:
    """Of some text under a model, token by token."""
    tokens = torch.arange(20, 60)[None]
    with torch.no_grad():
        logits = model.eval()(input_ids=tokens).logits[0, :-1]
    return logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0]


def build_way(way: Way, model: Path, folder: Path) -> Any:
    """The trainer of a way, in a rank that `run_ranks` has started."""
    from memr1.rl import trainer as trainers
    from memr1.rl.worker import join_process_group

    if way.deepspeed:
        join_process_group()
    if not way.shares_prompts:
        _run_every_row(trainers)
    folder.mkdir(parents=True, exist_ok=True)
    return trainers.build_trainer(
        model,
        [{"id": f"e{number}", "prompt": prompt} for number, prompt in enumerate(PROMPTS)],
        [],
        reward,  # type: ignore[arg-type]  # what the trainer calls, and no more
        agent=AgentConfig(max_new_tokens=NEW_TOKENS),
        schedule=AgentTraining(num_steps=way.num_steps, learning_rate=1e-2 if way.lora else 1e-3, kl_coefficient=0.1),
        training=training_options(way),
        deepspeed=deepspeed_config(way.deepspeed) if way.deepspeed else None,
        folder=folder,
        seed=5,
    )


def _train(way: Way, model: Path, folder: Path) -> None:
    from memr1.rl.worker import leave_process_group

    trainer = build_way(way, model, folder)
    trainer.train()
    trainer.save_model(str(folder / "model"))
    if trainer.is_world_process_zero():
        (folder / "history.json").write_text(json.dumps(trainer.state.log_history))
        if way.lora:
            torch.save(token_log_probs(trainer.accelerator.unwrap_model(trainer.model)), folder / "log_probs.pt")
    trainer.accelerator.wait_for_everyone()
    leave_process_group()


def _run_every_row(trainers: Any) -> None:
    """Take the trainers' loss from TRL as it is: every row runs whole, as often as it stands in the batch."""
    from trl import GRPOTrainer

    class StockLoss(trainers.SharedPromptGrpo):  # type: ignore[misc]
        def _get_per_token_logps_and_entropies(
            self, model: Any, input_ids: Any, mask: Any, number: int, *args: Any, **kwargs: Any
        ) -> Any:
            found = GRPOTrainer._get_per_token_logps_and_entropies(
                self, model, input_ids, mask, number, *args, **kwargs
            )
            self._spread(torch.arange(len(input_ids)), number)
            return found

    class StockLossPpo(trainers.PpoTrainer, StockLoss):  # type: ignore[misc]
        pass

    trainers.SharedPromptGrpo, trainers.PpoTrainer = StockLoss, StockLossPpo
