"""The supervised baseline: learn from one's own best completions, with what reinforcement is given and nothing more.

Rejection-sampling fine-tuning (RAFT, arXiv 2304.06767, in one round): of every example as many completions are sampled
from the warm start as GRPO samples, the best rewarded one is kept, and the agent is trained on those that are right for
as many optimiser steps as GRPO takes.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from memr1.agents.transformers_generator import TransformersGenerator, load_model, load_tokenizer
from memr1.config import AgentName, RunConfig
from memr1.rl.tasks import Row, load_task, start_location
from memr1.rl.trainer import ADAM_BETAS, chat_rows
from memr1.run_dir import RunDir


def fine_tune(run: RunDir, config: RunConfig, agent: AgentName) -> None:
    """Train an agent on its phase's examples; the weights go where the phase's would."""
    rows, _, reward = load_task(run, config, agent)
    training, schedule = config.training, config.agent_training(agent)
    start = start_location(run, config, agent)
    generator = TransformersGenerator(start, seed=config.seed)
    stream = _stream(rows, training.prompts_per_step, schedule.num_steps, config.seed)
    kept: list[tuple[Row, str]] = []
    for batch in stream:
        asked = [row for row in batch for _ in range(training.completions_per_prompt)]
        texts = generator.sample_texts(
            [row["prompt"] for row in asked],
            max_new_tokens=config.agent(agent).max_new_tokens,
            temperature=training.temperature,
        )
        scores = reward(texts, example_id=[row["id"] for row in asked], log_metric=lambda *_: None)
        kept += _best(list(zip(asked, texts, scores, strict=True)), training.completions_per_prompt)
    _train(start, kept, run.model(agent), schedule.num_steps, schedule.learning_rate, config.seed)


def _stream(rows: list[Row], batch_size: int, num_steps: int, seed: int) -> list[list[Row]]:
    """Every example once before any comes again, as reinforcement sees them."""
    rng = random.Random(seed)
    drawn: list[Row] = []
    while len(drawn) < batch_size * num_steps:
        drawn += rng.sample(rows, len(rows))
    return [drawn[step * batch_size : (step + 1) * batch_size] for step in range(num_steps)]


def _best(scored: Sequence[tuple[Row, str, float | None]], group_size: int) -> list[tuple[Row, str]]:
    groups = [scored[place : place + group_size] for place in range(0, len(scored), group_size)]
    best = [max(group, key=lambda item: item[2] or 0.0) for group in groups]
    return [(row, text) for row, text, score in best if score]


def _train(
    start: str | Path, kept: list[tuple[Row, str]], folder: Path, num_steps: int, learning_rate: float, seed: int
) -> None:
    tokenizer = load_tokenizer(start)
    arguments = SFTConfig(
        output_dir=str(folder.with_name("sft")),
        max_steps=num_steps,
        per_device_train_batch_size=max(1, len(kept) // num_steps),
        learning_rate=learning_rate,
        adam_beta1=ADAM_BETAS[0],
        adam_beta2=ADAM_BETAS[1],
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        completion_only_loss=True,  # the mask alone does not say so
        save_strategy="no",
        logging_steps=num_steps,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    trainer = SFTTrainer(
        model=load_model(start),
        args=arguments,
        train_dataset=Dataset.from_list([_tokens(tokenizer, row, text) for row, text in kept]),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(folder))


def _tokens(tokenizer: Any, row: Row, text: str) -> dict[str, list[int]]:
    """A prompt as the agent meets it, and the completion that it is to learn."""
    [chat] = [item["prompt"] for item in chat_rows([row])]
    prompt = list(tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"])
    completion = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    mask = [0] * len(prompt) + [1] * len(completion)
    return {"input_ids": prompt + completion, "completion_mask": mask}
