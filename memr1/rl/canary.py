"""Proves that the weights being sampled are the ones being trained.

A few prompts are completed by the very path that makes the rollouts; the sampler's log-probabilities of its tokens must
be the trainer's own. They are not when an adapter is not applied in the sampler, is applied twice, or when the sampler
works on a stale copy of the weights. Such a run goes on without an error and learns little or nothing.

Before the first update adapters change nothing (LoRA's B is 0), so the probe is repeated once weights have moved:
before the first two steps of a process, and then after every checkpoint.

Left out: in bfloat16 the tolerance hides what the first updates change, so that a fault shows only when the policy has
moved further than rounding does.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from memr1.errors import TrainingError
from memr1.rl.grpo import SharedPromptGrpo

NUM_PROMPTS = 2
NUM_COMPLETIONS = 8  # of each
GAP_FLOAT32 = 1e-3  # nats per token: rounding alone stays under 1e-5
GAP_ROUNDED = 0.1  # bfloat16, or another program's kernels


class SamplerCanary(TrainerCallback):
    """Compares sampler and trainer on a fixed probe; all ranks stop together."""

    def __init__(
        self, trainer: SharedPromptGrpo, rows: Sequence[dict[str, Any]], max_gap: float | None, every: int
    ) -> None:
        """The first of `rows` (with a `prompt`, a list of messages) are the probe.

        `max_gap` in nats per token (None: what rounding may explain), `every` in steps.
        """
        self._trainer = trainer
        self._prompts = [row["prompt"] for row in rows[:NUM_PROMPTS]]
        self._max_gap = max_gap
        self._every = every
        self._num_begun = 0  # steps of this process

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raises TrainingError."""
        self._num_begun += 1
        if self._num_begun > 2 and state.global_step % self._every:
            return
        gap, limit = sampler_gap(self._trainer, self._prompts), self._max_gap or default_gap(self._trainer)
        self._trainer.report("sampler_gap", gap)
        if not gap <= limit:  # a gap that is not a number is none that is small enough
            raise TrainingError(
                f"training stopped at step {state.global_step}: the weights that are sampled are not the ones being "
                f"trained. Their log-probabilities of the same tokens differ by {gap:.3g} nats per token "
                f"(training.guards.max_sampler_gap = {limit:g}): an adapter is not applied in the sampler, or it works "
                "on a stale copy of the weights. The last checkpoint is kept."
            )


def default_gap(trainer: SharedPromptGrpo) -> float:
    """What rounding may explain."""
    model: Any = trainer.model
    exact = next(model.parameters()).dtype == torch.float32 and not trainer.use_vllm
    return GAP_FLOAT32 if exact else GAP_ROUNDED


def sampler_gap(trainer: SharedPromptGrpo, prompts: Sequence[Any]) -> float:
    """Mean absolute difference of the two log-probabilities over a probe's tokens, nats; the largest of all ranks."""
    settings: Any = trainer.args
    group = settings.num_generations if trainer.use_vllm else NUM_COMPLETIONS  # vLLM is asked for whole groups
    tokenised, _, _ = trainer._tokenize_prompts([prompt for prompt in prompts for _ in range(group)])
    devices = [trainer.accelerator.device] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):  # the rollouts to come must not depend on whether somebody looked
        completions, sampled = trainer.probe_sampler(tokenised)
    tokens, mask, num_new_tokens = _pad(tokenised, completions, trainer.accelerator.device)
    with torch.no_grad():
        scored, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, tokens, mask, num_new_tokens)
    differences = [
        (scored[row, : len(values)].float() - torch.tensor(values, device=scored.device)).abs()
        for row, values in enumerate(sampled)
    ]
    gap: torch.Tensor = trainer.accelerator.gather(torch.cat(differences).nanmean()[None])
    return float(gap.max())


def _pad(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Tokens and mask of shape (rows, tokens), prompts ending and completions starting in the same column."""
    before, after = max(map(len, prompts)), max(map(len, completions))
    tokens = torch.zeros(len(prompts), before + after, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        written = slice(before - len(prompt), before + len(completion))
        tokens[row, written] = torch.tensor([*prompt, *completion])
        mask[row, written] = 1
    return tokens.to(device), mask.to(device), after
