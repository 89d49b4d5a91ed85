"""How fast the shipped models answer: memr1's decoding loop against `generate`, which must give the same texts.

    python benchmarks/generation.py [--quick] [--out FILE.json]

One thread, processor seconds of this process, the fastest of five rounds each, the two taking turns. Prompts are those
of the compact form: a Manager's with 6 memories, an Answer Agent's with 16.
"""

import argparse
import os
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from harness import run_benchmark

from memr1.agents.decoding import pad_left
from memr1.agents.prompting import render_answer_prompt, render_manager_prompt
from memr1.agents.transformers_generator import TransformersGenerator
from memr1.bank.entry import MemoryEntry
from memr1.tiny.weights import agent_folder

NAMES, PLACES = ("Marta", "Joe", "Anna", "Peter", "Silvia", "Omar"), ("Lisbon", "Rome", "Oslo", "Paris", "Bern", "Lima")
NUM_PROMPTS, BATCH_SIZE, MAX_NEW_TOKENS, NUM_ROUNDS = 256, 64, 64, 5


def measure(options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(1)
    rng, number = random.Random(0), NUM_PROMPTS // 4 if options.quick else NUM_PROMPTS
    managers = [render_manager_prompt("compact", memories(rng, 6), [said(rng)]) for _ in range(number)]
    answers = [render_answer_prompt("compact", memories(rng, 16), asked(rng)) for _ in range(number)]
    return {
        "num_prompts": number,
        "batch_size": BATCH_SIZE,
        "memory_manager": compare(TransformersGenerator(agent_folder("memory_manager")), managers),
        "answer_agent": compare(TransformersGenerator(agent_folder("answer_agent")), answers),
    }


def compare(generator: TransformersGenerator, prompts: list[str]) -> dict[str, Any]:
    own, stock = [], []
    for _ in range(NUM_ROUNDS):
        texts, seconds = clocked(lambda: generator.sample_texts(prompts, max_new_tokens=MAX_NEW_TOKENS))
        own.append(seconds)
        stock_texts, seconds = clocked(lambda: generate(generator, prompts))
        stock.append(seconds)
        if texts != stock_texts:
            raise SystemExit("the two give different texts")
    return {
        "mean_prompt_tokens": mean([len(encode(generator, prompt)) for prompt in prompts]),
        "mean_new_tokens": mean([len(generator._tokenizer(text)["input_ids"]) for text in texts]),
        "same_texts": True,
        "processor_seconds": round(min(own), 3),
        "processor_seconds_generate": round(min(stock), 3),
        "prompts_per_second": round(len(prompts) / min(own)),
        "times_faster": round(min(stock) / min(own), 2),
    }


def generate(generator: TransformersGenerator, prompts: list[str]) -> list[str]:
    """What `generate` makes of the same batches."""
    model, tokenizer = generator._model, generator._tokenizer
    wanted = sorted(set(prompts), key=lambda prompt: -len(encode(generator, prompt)))
    texts: dict[str, str] = {}
    for start in range(0, len(wanted), BATCH_SIZE):
        batch = wanted[start : start + BATCH_SIZE]
        tokens, mask = pad_left([encode(generator, prompt) for prompt in batch], generator._device)
        with torch.inference_mode():
            ids = model.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)[
                :, tokens.size(1) :
            ]
        texts.update(zip(batch, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True))
    return [texts[prompt] for prompt in prompts]


def encode(generator: TransformersGenerator, prompt: str) -> list[int]:
    return generator._encode(prompt, MAX_NEW_TOKENS)


def memories(rng: random.Random, number: int) -> list[MemoryEntry]:
    time_of = datetime(2024, 1, 1)
    return [
        MemoryEntry(
            id=str(n), scope="c", speaker="s", text=f"{rng.choice(NAMES)} lives in {rng.choice(PLACES)}", time=time_of
        )
        for n in range(number)
    ]


def said(rng: random.Random) -> str:
    return f"{rng.choice(NAMES)}: I moved to {rng.choice(PLACES)}."


def asked(rng: random.Random) -> str:
    return f"Where does {rng.choice(NAMES)} live?"


def clocked(work: Callable[[], list[str]]) -> tuple[list[str], float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def mean(numbers: list[int]) -> float:
    return round(sum(numbers) / len(numbers), 1)


if __name__ == "__main__":
    run_benchmark("generation", __doc__, measure)
