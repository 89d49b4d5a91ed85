"""GRPO (arXiv 2508.19828, eq. 3) by TRL's GRPOTrainer, computing nothing twice.

`Any` stands for models and TRL's batches: their types are too loose to be of help.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from memr1.agents.decoding import decode
from memr1.rl.example_stream import ExampleStream
from memr1.rl.shared_prefix import share_prompts


class SharedPromptGrpo(GRPOTrainer):
    """TRL's GRPO, except that nothing is computed twice: a prompt runs once for its whole rollout group
    (memr1.rl.shared_prefix, memr1.agents.decoding), and equal completions of a group are scored once in the loss.

    `decode_batch` bounds the completions that one process decodes together."""

    def __init__(self, *args: Any, decode_batch: int = 512, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decode_batch = decode_batch
        self._rewards = torch.empty(0)  # of all ranks' completions; NaN where nothing could be asked
        for model in (self.model, self.ref_model):
            if model is not None:
                share_prompts(self.causal_model(model))

    def causal_model(self, model: Any) -> Any:
        """The language model inside what accelerate and PEFT wrap around it."""
        plain = self.accelerator.unwrap_model(model)
        return plain.get_base_model() if isinstance(plain, PeftModel) else plain

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(*args, **kwargs)
        self._rewards = rewards[:, 0]  # of one reward function, which has weighed and added everything already
        return rewards

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        """Completions (their end token included) and no log-probabilities: those are computed in the loss."""
        if self.use_vllm:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)  # type: ignore[no-untyped-call]
        with self.whole_model() as model:
            return self.sample_completions(model, prompt_ids), None

    @contextmanager
    def whole_model(self) -> Iterator[Any]:
        """The policy with all its weights on this rank. Entering and leaving it are collective."""
        settings: Any = self.args  # a GRPOConfig: the base class promises less
        whole = unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=settings.ds3_gather_for_generation,
            gradient_checkpointing_kwargs=settings.gradient_checkpointing_kwargs,
        )
        with whole as model, torch.no_grad():
            yield model

    def sample_completions(
        self,
        model: Any,
        prompt_ids: list[list[int]],
        *,
        greedy: bool = False,
        call: int = 0,
        log_probs: list[list[float]] | None = None,
    ) -> list[list[int]]:
        """One completion per prompt, by the whole model.

        `call` tells the calls of one step apart: the same prompts get other random numbers. A list given as
        `log_probs` is filled with the log-probabilities of the tokens, one list per prompt.
        """
        settings: Any = self.args
        draws = None if greedy else self._draws(len(prompt_ids), call)
        completions: list[list[int]] = []
        for first in range(0, len(prompt_ids), self.decode_batch):
            given: list[list[float]] | None = None if log_probs is None else []
            completions += decode(
                model,
                prompt_ids[first : first + self.decode_batch],
                end_ids=self.eos_token_ids,
                max_new_tokens=settings.max_completion_length,
                temperature=self.temperature,
                draws=None if draws is None else draws[first : first + self.decode_batch],
                log_probs=given,
            )
            if log_probs is not None:
                log_probs += given or []
        return completions

    def complete_greedily(self, prompt_ids: list[list[int]]) -> list[list[int]]:
        """The policy's likeliest tokens. Under ZeRO-3 every rank calls it equally often, with at least one prompt."""
        with self.whole_model() as model:
            return self.sample_completions(model, prompt_ids, greedy=True)

    def probe_sampler(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
        """Completions on the path of the rollouts, and the sampler's own log-probabilities of their tokens."""
        if self.use_vllm:
            completions, given = super()._generate_single_turn(prompt_ids, None, {}, self.num_generations)  # type: ignore[no-untyped-call]
            return completions, [[math.nan if value is None else value for value in values] for values in given]
        log_probs: list[list[float]] = []
        with self.whole_model() as model:
            return self.sample_completions(model, prompt_ids, log_probs=log_probs), log_probs

    def report(self, name: str, value: torch.Tensor | float) -> None:
        """Add a figure to the step's metrics."""
        self._metrics["train"][name].append(float(value))

    def rehearse(self, model: Any, tokens: torch.Tensor, mask: torch.Tensor, num_new_tokens: int) -> torch.Tensor:
        """A number whose gradient costs what a micro-batch costs; `model` stands for the policy."""
        log_probs = self._get_per_token_logps_and_entropies(model, tokens, mask, num_new_tokens, compute_entropy=True)[
            0
        ]
        total: torch.Tensor = log_probs.float().sum()
        return total

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's batches of one step, rollout groups kept together: it shuffles rows, and would share no prompt."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is None or self._buffered_inputs is before:
            return inputs
        self._buffered_inputs = group_rows(self._buffered_inputs)
        return self._buffered_inputs[self._step % len(self._buffered_inputs)]

    def _draws(self, num_rows: int, call: int) -> torch.Tensor:
        """The numbers that choose this process's completions, in each row by its place among those of all processes."""
        settings: Any = self.args
        first, origin = self.accelerator.process_index * num_rows, (settings.seed, self.state.global_step, call)
        rows = [
            np.random.default_rng((*origin, row)).random(settings.max_completion_length)
            for row in range(first, first + num_rows)
        ]
        return torch.from_numpy(np.reshape(rows, (num_rows, settings.max_completion_length)))

    def _get_train_sampler(self, dataset: Any = None) -> ExampleStream:
        """As long as the training: with rows left over, one that is resumed after its last step would take another."""
        settings: Any = self.args
        examples: Any = self.train_dataset
        return ExampleStream(
            len(examples),
            num_batches=max(1, settings.max_steps) * settings.gradient_accumulation_steps,
            prompts_per_batch=settings.generation_batch_size // settings.num_generations,
            group_size=settings.num_generations,
            num_passes=self.num_iterations * settings.steps_per_generation,
            seed=settings.seed,
        )

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """In batches of `batch_size` rows, equally many on every process: together they gather sharded weights."""
        rows = torch.stack([input_ids, attention_mask.to(input_ids.dtype)], -1)
        batches = torch.split(rows, batch_size or len(rows))
        found = [self._score_distinct(model, batch, logits_to_keep, **kwargs) for batch in batches]
        log_probs, entropies, auxiliary = zip(*found, strict=True)
        return (
            torch.cat(log_probs),
            None if entropies[0] is None else torch.cat(entropies),
            None if auxiliary[0] is None else torch.stack(auxiliary).mean(),
        )

    def _score_distinct(self, model: Any, batch: torch.Tensor, num_tokens: int, **kwargs: Any) -> Any:
        """Each row's results, equal rows run once. Shape of the batch: (rows, tokens, 2), tokens beside their mask."""
        rows, row_of = torch.unique(batch, dim=0, return_inverse=True)
        shared = partial(model, shared_prompt_tokens=batch.size(1) - num_tokens)
        log_probs, entropies, auxiliary = super()._get_per_token_logps_and_entropies(
            shared, rows[..., 0], rows[..., 1], num_tokens, **kwargs
        )
        self._spread(row_of, num_tokens)
        return log_probs[row_of], None if entropies is None else entropies[row_of], auxiliary

    def _spread(self, row_of: torch.Tensor, num_tokens: int) -> None:
        """For a subclass that collects more than log-probabilities: `row_of` gives each row's place among those run."""


def group_rows(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows in batches of the same size, those of one prompt next to one another.

    All batches of a step make one update, so that their order means nothing to it. Values are tensors of shape
    (rows, …) or lists of that length, tensors without dimensions, or None.
    """
    if len(batches) == 1:
        return batches
    prompts = torch.cat([batch["prompt_ids"] for batch in batches])
    order = torch.unique(prompts, dim=0, return_inverse=True)[1].argsort(stable=True)
    size = len(batches[0]["prompt_ids"])
    parts = [order[first : first + size] for first in range(0, len(order), size)]
    return [{name: _take(batches, name, rows) for name in batches[0]} for rows in parts]


def _take(batches: list[dict[str, Any]], name: str, rows: torch.Tensor) -> Any:
    values = [batch[name] for batch in batches]
    if values[0] is None or (isinstance(values[0], torch.Tensor) and values[0].ndim == 0):
        return values[0]
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)[rows]
    flat = [value for part in values for value in part]
    return [flat[row] for row in rows.tolist()]
