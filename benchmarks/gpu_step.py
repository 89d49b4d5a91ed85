"""How long a GRPO step of a model of real size takes on one GPU: stock TRL beside memr1's trainer.

    python benchmarks/gpu_step.py [--quick] [--out FILE.json]

Random weights in the shapes of Qwen2.5-0.5B, 1.5B, 3B and 7B (speed does not depend on what weights say), LoRA of rank
16 on every projection, bf16, gradient checkpointing, one prompt and its 8 completions a step, generation included.
Every measurement is a process of its own, so that one that runs out of memory ends with nothing but its line. Figures:

    seconds            the shortest step after the first
    completions_per_second
    peak_gib           the most that torch held on the GPU
    utilisation        the share of the GPU's bf16 peak (dense) that the arithmetic of a step would take in that time:
                       2 FLOP a weight and token, for sampling, the reference policy, the loss, its recomputation under
                       checkpointing, and the way back to the activations (adapters are trained, not weights); the same
                       for both trainers: of the G (P + R) tokens that a step is about, however few are run
    longest_prompt     the longest of `LADDER` that does not run out of memory

Every figure is kept as soon as it is found: a command that was stopped goes on when it is repeated. Without a GPU it
says so in the result and ends well. --quick measures the smallest model at 1,024 tokens.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from harness import found_once, run_benchmark
from peft import LoraConfig
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from memr1.rl.grpo import SharedPromptGrpo
from memr1.rl.sizing import SHAPES, ModelShape
from memr1.tiny.weights import agent_folder

MODELS = ("Qwen2.5-0.5B", "Qwen2.5-1.5B", "Qwen2.5-3B", "Qwen2.5-7B")
MICRO = ModelShape(layers=2, hidden=32, intermediate=48, heads=4, key_value_heads=2, vocabulary=2048, head_size=8)
PROMPT_TOKENS, LADDER = (1024, 4096), (1024, 2048, 4096, 8192, 16384, 32768)
GROUP, NEW_TOKENS, LORA_RANK, NUM_STEPS = 8, 256, 16, 3
KINDS: dict[str, type[GRPOTrainer]] = {"stock": GRPOTrainer, "memr1": SharedPromptGrpo}
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12}  # FLOP/s, bf16
LIMIT_SECONDS = 1800


def measure(options: argparse.Namespace) -> dict[str, object]:
    if not torch.cuda.is_available():
        return {"gpu": None, "note": "not measured: this machine has no GPU", "rows": []}
    models, lengths = (MODELS[:1], PROMPT_TOKENS[:1]) if options.quick else (MODELS, PROMPT_TOKENS)
    rows = [
        found_once(options, f"{model}-{length}-{kind}", partial(measure_row, model, length, kind))
        for model in models
        for length in lengths
        for kind in KINDS
    ]
    climbed = [] if options.quick else models
    longest = {
        model: {kind: found_once(options, f"{model}-{kind}", partial(climb, model, kind)) for kind in KINDS}
        for model in climbed
    }
    return {
        "gpu": torch.cuda.get_device_name(), "completions": GROUP, "new_tokens": NEW_TOKENS, "lora_rank": LORA_RANK,
        "rows": rows, "longest_prompt": longest,
    }  # fmt: skip


def show(figures: Mapping[str, Any]) -> str:
    if figures["gpu"] is None:
        return str(figures["note"])
    lines = [f"{figures['gpu']}\nmodel         prompt  kind    seconds  completions/s  peak GiB  utilisation"]
    for row in figures["rows"]:
        place = f"{row['model']:<13} {row['prompt_tokens']:>6}  {row['kind']:<6}"
        if row["failure"]:
            lines.append(f"{place}  {row['failure']}")
            continue
        share = "unknown" if row["utilisation"] is None else f"{row['utilisation']:.1%}"
        lines.append(
            f"{place} {row['seconds']:>8.2f} {row['completions_per_second']:>14.2f} {row['peak_gib']:>9.1f} {share:>12}"
        )
    return "\n".join(
        [*lines, *(f"longest prompt of {name}: {found}" for name, found in figures["longest_prompt"].items())]
    )


def measure_row(model: str, length: int, kind: str) -> dict[str, Any]:
    """One step's figures, from a process of its own; `failure` says why there are none."""
    row = {"model": model, "prompt_tokens": length, "kind": kind}
    command = [sys.executable, __file__, "--step", json.dumps(row)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {**row, "failure": f"longer than {LIMIT_SECONDS} s"}
    if done.returncode:
        out_of_memory = "OutOfMemoryError" in done.stderr
        return {**row, "failure": "out of memory" if out_of_memory else done.stderr.strip().splitlines()[-1]}
    return {**row, "failure": None, **json.loads(done.stdout.splitlines()[-1])}


def climb(model: str, kind: str) -> int:
    """The longest prompt of the ladder that fits; 0 when none does."""
    longest = 0
    for length in LADDER:
        if measure_row(model, length, kind)["failure"]:
            break
        longest = length
    return longest


def run_step(shape: ModelShape, length: int, kind: str, new_tokens: int = NEW_TOKENS) -> dict[str, Any]:
    """Train `NUM_STEPS` steps in this process, on the GPU if there is one, and look at them."""
    on_gpu = torch.cuda.is_available()
    with TemporaryDirectory() as folder:
        write_network(shape, length + new_tokens, Path(folder) / "network", on_gpu)
        clock = Clock()
        trainer = build_trainer(KINDS[kind], Path(folder), shape.vocabulary, length, new_tokens, on_gpu)
        trainer.add_callback(clock)
        trainer.train()
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    flops = step_flops(shape, length, new_tokens)
    limit = next((value for name, value in PEAKS.items() if on_gpu and name in torch.cuda.get_device_name()), None)
    return {
        "seconds": round(clock.seconds, 4),
        "completions_per_second": round(GROUP / clock.seconds, 3),
        "peak_gib": peak and round(peak, 2),
        "utilisation": limit and round(flops / clock.seconds / limit, 4),
    }


def step_flops(shape: ModelShape, length: int, new_tokens: int) -> float:
    """Floating-point operations of a step, attention's included: 4 h a token and layer for each token looked at."""
    tokens = GROUP * (length + new_tokens)
    looked_at = (length + new_tokens) / 2
    attention = 4 * shape.layers * shape.heads * shape.head_size * looked_at
    forward = tokens * (2 * shape.num_parameters + attention)
    return 5 * forward  # sampling, reference, loss, its recomputation, and backwards to the activations


class Clock(TrainerCallback):
    """The shortest of a trainer's steps after the first, which also warms up."""

    def __init__(self) -> None:
        self.seconds = float("inf")
        self._started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step > 1:
            self.seconds = min(self.seconds, self._now() - self._started)

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def write_network(shape: ModelShape, context: int, folder: Path, on_gpu: bool) -> None:
    """Random weights in bf16 that never end a completion early, and the tiny pair's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(str(agent_folder("answer_agent")))
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.key_value_heads,
        tie_word_embeddings=shape.tied, max_position_embeddings=context,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if on_gpu else "cpu"):
        network = Qwen2ForCausalLM(config).to(torch.bfloat16 if on_gpu else torch.float32)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del network
    torch.cuda.empty_cache()


def build_trainer(
    kind: type[GRPOTrainer], folder: Path, vocabulary: int, length: int, new_tokens: int, on_gpu: bool
) -> GRPOTrainer:
    """A trainer on prompts of exactly `length` tokens, with generation that stops at `new_tokens`."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "network"), padding_side="left")
    return fixed_length(kind)(
        model=str(folder / "network"),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(folder / "run"),
            max_steps=NUM_STEPS,
            per_device_train_batch_size=GROUP,
            num_generations=GROUP,
            max_completion_length=new_tokens,
            beta=0.001,
            loss_type="grpo",
            use_cpu=not on_gpu,
            bf16=on_gpu,
            activation_checkpointing=True,
            model_init_kwargs={"dtype": "bfloat16" if on_gpu else "float32"},
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=Dataset.from_list([{"prompt": f"{number} {length}"} for number in range(NUM_STEPS)]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=LORA_RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    )


def fixed_length(kind: type[GRPOTrainer]) -> type[GRPOTrainer]:
    """The trainer, with prompts of random tokens: `"<seed> <length>"` stands for one."""

    class FixedLength(kind):  # type: ignore[misc, valid-type]
        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [list(random_tokens(*map(int, prompt.split()))) for prompt in prompts], None, {}

    FixedLength.__name__ = kind.__name__
    return FixedLength


def random_tokens(seed: int, length: int) -> Iterator[int]:
    """Tokens that every tokenizer has, and that end nothing."""
    generator = torch.Generator().manual_seed(seed)
    yield from torch.randint(10, 900, (length,), generator=generator).tolist()


def reward(completions: list[str], **_: Any) -> list[float]:
    """Something that differs between completions and costs nothing."""
    return [sum(map(ord, text)) % 97 / 97 for text in completions]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        chosen = json.loads(sys.argv[2])
        print(json.dumps(run_step(SHAPES[chosen["model"]], chosen["prompt_tokens"], chosen["kind"])))
    else:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        run_benchmark("gpu_step", __doc__, measure, show)
