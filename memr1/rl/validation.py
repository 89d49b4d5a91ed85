"""Scores the policy on the validation examples before every checkpoint, and remembers which one did best.

Completions are greedy, so that a score depends on the weights alone; the score is the mean reward. What is remembered
stands in every checkpoint's trainer_state.json, so a resumed run chooses as an uninterrupted one would. The best
checkpoint is kept on disk besides the newest ones.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from memr1.rl.grpo import SharedPromptGrpo

FEWEST_PROMPTS = 8  # completed together, however few a step's rollouts have


class Validation(TrainerCallback):
    """Marks the step whose checkpoint is to be served: the best scored, the later one of equals."""

    def __init__(self, trainer: SharedPromptGrpo, rows: Sequence[dict[str, Any]], reward: Any) -> None:
        """`rows` hold `example_id` and `prompt` (a list of messages); `reward` is a reward function as TRL calls it."""
        self._trainer = trainer
        self._rows = rows
        self._reward = reward

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Before a checkpoint is written: the trainer's own callback, which decides on that, comes first."""
        if not control.should_save or not self._rows:
            return
        score = score_policy(self._trainer, self._rows, self._reward)
        self._trainer.report("validation_reward", score)
        if state.best_metric is None or score >= state.best_metric:
            state.best_metric, state.best_global_step = score, state.global_step


def score_policy(trainer: SharedPromptGrpo, rows: Sequence[dict[str, Any]], reward: Any) -> float:
    """Mean reward of greedy completions, each rank taking its share of the rows; the same number on every rank."""
    settings: Any = trainer.args
    tokenizer: Any = trainer.processing_class
    world, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    together = max(
        FEWEST_PROMPTS, settings.per_device_train_batch_size * settings.steps_per_generation // settings.num_generations
    )
    scores: list[float] = []
    for batch in _batches(rows, world, rank, together):
        completed = batch or rows[:1]  # under ZeRO-3 ranks run together: one that has nothing left repeats an example
        tokens = trainer._tokenize_prompts([row["prompt"] for row in completed])[0]
        texts = tokenizer.batch_decode(trainer.complete_greedily(tokens), skip_special_tokens=True)
        keys = [row["example_id"] for row in batch]
        given = reward(texts, example_id=keys, log_metric=lambda name, value: None) if batch else []
        scores += [score for score in given if score is not None]
    totals = torch.tensor([sum(scores), len(scores)], dtype=torch.float64, device=trainer.accelerator.device)
    total, count = trainer.accelerator.reduce(totals, reduction="sum").tolist()
    return float(total / max(count, 1.0))


def _batches(
    rows: Sequence[dict[str, Any]], num_ranks: int, rank: int, size: int
) -> Iterator[Sequence[dict[str, Any]]]:
    """This rank's rows, as many batches as on every other rank: the last may be empty."""
    own = rows[rank::num_ranks]
    for first in range(0, -(-len(rows) // num_ranks), size):
        yield own[first : first + size]
