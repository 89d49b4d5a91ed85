"""How long a GRPO step takes: stock TRL beside memr1's trainer, taking turns in one process, generation included.

    python benchmarks/grpo_step.py [--quick] [--out FILE.json]

The same random weights (the tiny pair's shape), prompts, seed and lengths for both: two prompts, eight completions
each, 64 new tokens, one thread, float32, a KL penalty. First both losses and all gradients are compared on one batch
of rollouts: they must agree to 1e-5. `floor_ratio` is the arithmetic: tokens that stock TRL runs through the network,
G(P + R), over those that cannot be avoided, P + G·R; `share_of_floor` is how much of that is reached.

Memory is the resident memory that two steps take at most beyond what the trainer held before them, each trainer in a
process of its own: in one, the second would reuse what the first left to the allocator. Linux only.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
from datasets import Dataset
from harness import memory_field, run_benchmark
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from memr1.data.synthetic_relations import RELATIONS
from memr1.rl.grpo import SharedPromptGrpo
from memr1.tiny.architecture import Shape, build_network
from memr1.tiny.weights import agent_folder

NUM_PROMPTS, GROUP, NEW_TOKENS = 2, 8, 64
PROMPT_TOKENS = (128, 512, 1024, 2048)
PIECES = [f" {relation.phrase} " for relation in RELATIONS]  # one token each, wherever they stand
TOLERANCE = 1e-5


def measure(options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(1)
    lengths, rounds = ((128, 512), 1) if options.quick else (PROMPT_TOKENS, 3)
    with TemporaryDirectory() as folder:
        write_network(Path(folder) / "network")
        memory = [measure_memory(length, Path(folder)) for length in (lengths[1:] if options.quick else lengths)]
        rows = [measure_row(length, rounds, Path(folder)) for length in lengths]
    return {
        "num_prompts": NUM_PROMPTS,
        "completions_per_prompt": GROUP,
        "new_tokens": NEW_TOKENS,
        "rows": rows,
        "memory": memory,
    }


def show(figures: Mapping[str, Any]) -> str:
    lines = [" prompt  stock s  memr1 s  ratio  floor  reached  difference of loss, gradient"]
    for row in figures["rows"]:
        lines.append(
            f"{row['prompt_tokens']:>7} {row['stock_seconds']:>8.2f} {row['memr1_seconds']:>8.2f} {row['ratio']:>6.2f} "
            f"{row['floor_ratio']:>6.2f} {row['share_of_floor']:>8.0%}  "
            f"{row['loss_difference']:.0e}, {row['gradient_difference']:.0e}"
        )
    lines += ["", " prompt  stock MiB  memr1 MiB  ratio"]
    for row in figures["memory"]:
        lines.append(f"{row['prompt_tokens']:>7} {row['stock_mib']:>10} {row['memr1_mib']:>10} {row['ratio']:>6.2f}")
    return "\n".join(lines)


def measure_row(length: int, rounds: int, folder: Path) -> dict[str, Any]:
    """One row: the least seconds a step of either took, and how far the two differ."""
    network = folder / "network"
    trainers = {name: build(kind, network, length, folder) for name, kind in KINDS.items()}
    loss_difference, gradient_difference = compare(*trainers.values())
    if max(loss_difference, gradient_difference) > TOLERANCE:
        raise SystemExit(f"loss and gradient differ by {loss_difference:.1e} and {gradient_difference:.1e}")
    seconds: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(rounds):
        for name, kind in KINDS.items():
            trainer = build(kind, network, length, folder)
            clock = Clock()
            trainer.add_callback(clock)
            trainer.train()
            seconds[name].append(clock.seconds)
    stock, ours = (min(values) for values in seconds.values())
    floor = GROUP * (length + NEW_TOKENS) / (length + GROUP * NEW_TOKENS)
    return {
        "prompt_tokens": length,
        "stock_seconds": round(stock, 3),
        "memr1_seconds": round(ours, 3),
        "ratio": round(stock / ours, 2),
        "floor_ratio": round(floor, 2),
        "share_of_floor": round(stock / ours / floor, 2),
        "loss_difference": loss_difference,
        "gradient_difference": gradient_difference,
    }


def measure_memory(length: int, folder: Path) -> dict[str, Any]:
    """One row: what either's training takes at most, in a fresh process each."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as processes:
        stock, ours = (processes.apply(peak_mib, (name, folder / "network", length, folder)) for name in KINDS)
    return {"prompt_tokens": length, "stock_mib": stock, "memr1_mib": ours, "ratio": round(stock / ours, 2)}


def peak_mib(name: str, network: Path, length: int, folder: Path) -> int:
    """How far the resident memory of this process rises while it trains."""
    torch.set_num_threads(1)
    trainer = build(KINDS[name], network, length, folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at what is resident now
    before = memory_field("VmRSS")
    trainer.train()
    return round((memory_field("VmHWM") - before) / 1024)


KINDS: dict[str, type[GRPOTrainer]] = {"stock": GRPOTrainer, "memr1": SharedPromptGrpo}


class Clock(TrainerCallback):
    """The shortest of a trainer's steps after the first, which also warms up."""

    def __init__(self) -> None:
        self.seconds = float("inf")
        self._started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step > 1:
            self.seconds = min(self.seconds, time.perf_counter() - self._started)


def write_network(folder: Path) -> None:
    """Random weights in the tiny pair's shape, which never end a completion early."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(agent_folder("answer_agent")))
    network = build_network(Shape(), seed=0)
    network.config.eos_token_id = network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.config.pad_token_id = network.generation_config.pad_token_id = tokenizer.pad_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build(kind: type[GRPOTrainer], network: Path, length: int, folder: Path) -> GRPOTrainer:
    """A trainer of two steps on prompts of exactly `length` tokens."""
    tokenizer = AutoTokenizer.from_pretrained(str(network), padding_side="left")
    prompts = ["".join(PIECES[(place * (number + 3)) % len(PIECES)] for place in range(length)) for number in range(8)]
    assert all(len(tokenizer(prompt)["input_ids"]) == length for prompt in prompts)
    return kind(
        model=str(network),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(folder / "run"),
            max_steps=2,
            per_device_train_batch_size=NUM_PROMPTS * GROUP,
            num_generations=GROUP,
            max_completion_length=NEW_TOKENS,
            beta=0.03,
            loss_type="grpo",
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            gradient_checkpointing=False,
            model_init_kwargs={"dtype": "float32"},
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=tokenizer,
    )


def reward(completions: list[str], **_: Any) -> list[float]:
    """Something that differs between completions and costs nothing."""
    return [sum(map(ord, text)) % 97 / 97 for text in completions]


def compare(stock: GRPOTrainer, ours: GRPOTrainer) -> tuple[float, float]:
    """Difference of the losses (relative where they are above 1: GRPO's are near 0) and relative difference of all
    gradients, on the same rollouts."""
    rows = [row for row in (stock.train_dataset[place] for place in range(NUM_PROMPTS)) for _ in range(GROUP)]
    batch = stock._generate_and_score_completions(rows)
    results = []
    for trainer in (stock, ours):
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, dict(batch))
        loss.backward()
        gradients = torch.cat([weights.grad.flatten() for weights in trainer.model.parameters()])
        results.append((float(loss.detach()), gradients))
    (stock_loss, stock_gradients), (own_loss, own_gradients) = results
    difference = float((own_gradients - stock_gradients).norm() / stock_gradients.norm())
    return abs(own_loss - stock_loss) / max(abs(stock_loss), 1.0), difference


if __name__ == "__main__":
    run_benchmark("grpo_step", __doc__, measure, show)
