"""GRPO (arXiv 2508.19828, eq. 3) by TRL's GRPOTrainer, computing nothing twice.

`Any` stands for models and TRL's batches: their types are too loose to be of help.
"""

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
    (memr1.rl.shared_prefix, memr1.agents.decoding), and equal completions of a group are scored once in the loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for model in (self.model, self.ref_model):
            if model is not None:
                share_prompts(self.causal_model(model))

    def causal_model(self, model: Any) -> Any:
        """The language model inside what accelerate and PEFT wrap around it."""
        plain = self.accelerator.unwrap_model(model)
        return plain.get_base_model() if isinstance(plain, PeftModel) else plain

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        """Completions (their end token included) and no log-probabilities: those are computed in the loss."""
        if self.use_vllm:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)  # type: ignore[no-untyped-call]
        settings: Any = self.args  # a GRPOConfig: the base class promises less
        whole = unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gather_deepspeed3_params=settings.ds3_gather_for_generation
        )
        with whole as model, torch.no_grad():
            completions = decode(
                model,
                prompt_ids,
                end_ids=self.eos_token_ids,
                max_new_tokens=settings.max_completion_length,
                temperature=self.temperature,
                draws=self._draws(len(prompt_ids)),
            )
        return completions, None

    def _draws(self, num_rows: int) -> torch.Tensor:
        """The numbers that choose this process's completions, in each row by its place among those of all processes."""
        settings: Any = self.args
        first = self.accelerator.process_index * num_rows
        rows = [
            np.random.default_rng((settings.seed, self.state.global_step, row)).random(settings.max_completion_length)
            for row in range(first, first + num_rows)
        ]
        return torch.from_numpy(np.stack(rows))

    def _get_train_sampler(self, dataset: Any = None) -> ExampleStream:
        """As long as the training: with rows left over, one that is resumed after its last step would take another."""
        settings: Any = self.args
        return ExampleStream(
            len(self.train_dataset),
            num_batches=max(1, settings.max_steps) * settings.gradient_accumulation_steps,
            prompts_per_batch=settings.generation_batch_size // self.num_generations,
            group_size=self.num_generations,
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
        rows = torch.stack([input_ids, attention_mask.to(input_ids.dtype)], -1).split(batch_size or len(input_ids))
        found = [self._score_distinct(model, batch, logits_to_keep, **kwargs) for batch in rows]
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
