"""Fine-tuning on what the examples of reinforcement offer, for as many optimiser steps as GRPO takes.

On reference answers, the only labels that the examples have: the Answer Agent learns its own greedy completions with
the reference answer in place of its own. A Memory Manager cannot be taught so: nobody says which operation was right.

On the best of one's own samples (rejection sampling; RAFT, arXiv 2304.06767, in one round), for both agents: of every
example as many completions are sampled from the warm start as GRPO samples, the best rewarded one is kept if it is
right. That takes the reward, as reinforcement does.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from memr1.agents.transformers_generator import TransformersGenerator, load_model, load_tokenizer
from memr1.config import AgentName, RunConfig
from memr1.records import read_jsonl
from memr1.rl.examples import AnswerExample
from memr1.rl.tasks import Row, load_task, start_location
from memr1.rl.trainer import ADAM_BETAS, chat_rows
from memr1.run_dir import RunDir

Item = TypeVar("Item")
Shown = tuple[Row, str]  # an example, and the completion that it is to get


def learn_reference_answers(run: RunDir, config: RunConfig) -> None:
    """Train the Answer Agent on its phase's examples; the weights go where the phase's would."""
    start = start_location(run, config, "answer_agent")
    examples = list(read_jsonl(run.examples("answer_agent") / "examples.jsonl", AnswerExample))
    texts = TransformersGenerator(start, seed=config.seed).sample_texts(
        [example.prompt for example in examples], max_new_tokens=config.answer_agent.max_new_tokens
    )
    shown = [
        ({"id": example.id, "prompt": example.prompt}, _with_answer(text, example.answer))
        for example, text in zip(examples, texts, strict=True)
    ]
    schedule = config.agent_training("answer_agent")
    batches = _stream(shown, config.training.prompts_per_step, schedule.num_steps, config.seed)
    kept = [item for batch in batches for item in batch]
    _train(start, kept, run.model("answer_agent"), schedule.num_steps, schedule.learning_rate, config.seed)


def learn_from_the_best(run: RunDir, config: RunConfig, agent: AgentName) -> None:
    """Train an agent on its phase's examples; the weights go where the phase's would."""
    rows, _, reward = load_task(run, config, agent)
    training, schedule = config.training, config.agent_training(agent)
    start = start_location(run, config, agent)
    generator = TransformersGenerator(start, seed=config.seed)
    kept: list[Shown] = []
    for batch in _stream(rows, training.prompts_per_step, schedule.num_steps, config.seed):
        asked = [row for row in batch for _ in range(training.completions_per_prompt)]
        texts = generator.sample_texts(
            [row["prompt"] for row in asked],
            max_new_tokens=config.agent(agent).max_new_tokens,
            temperature=training.temperature,
        )
        scores = reward(texts, example_id=[row["id"] for row in asked], log_metric=lambda *_: None)
        kept += _best(list(zip(asked, texts, scores, strict=True)), training.completions_per_prompt)
    _train(start, kept, run.model(agent), schedule.num_steps, schedule.learning_rate, config.seed)


def _with_answer(completion: str, answer: str) -> str:
    """The completion, with this answer; the answer alone where the completion cannot be read."""
    try:
        said = dict(json.loads(completion))
    except (ValueError, TypeError):
        said = {}
    return json.dumps({**said, "answer": answer}, ensure_ascii=False, separators=(",", ":"))


def _stream(rows: list[Item], batch_size: int, num_steps: int, seed: int) -> list[list[Item]]:
    """Every example once before any comes again, as reinforcement sees them."""
    rng = random.Random(seed)
    drawn: list[Item] = []
    while len(drawn) < batch_size * num_steps:
        drawn += rng.sample(rows, len(rows))
    return [drawn[step * batch_size : (step + 1) * batch_size] for step in range(num_steps)]


def _best(scored: Sequence[tuple[Row, str, float | None]], group_size: int) -> list[Shown]:
    groups = [scored[place : place + group_size] for place in range(0, len(scored), group_size)]
    best = [max(group, key=lambda item: item[2] or 0.0) for group in groups]
    return [(row, text) for row, text, score in best if score]


def _train(start: str | Path, kept: list[Shown], folder: Path, num_steps: int, learning_rate: float, seed: int) -> None:
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
