"""The rehearsal of the memory that training needs, before its first step: a run that cannot end should not begin.

One forward and backward pass over the largest micro-batch that the examples can give (every prompt as long as the
longest, every completion as long as allowed), and the key/value cache of a whole step's completions. The backward pass
runs on stand-ins for the weights: they share the weights' memory, but not what DeepSpeed attaches to them, so that no
gradient is left behind and nothing of the training changes.

Left out: the gradients that DeepSpeed keeps, and the optimiser's moments, which the first step allocates: neither grows
with the examples. Under ZeRO-3 the weights are whole during the rehearsal, as they are in generation.
"""

import heapq
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.func import functional_call
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.distributed import DistributedBackend
from trl.models.utils import add_hooks, remove_hooks

from memr1.agents.decoding import fill_cache
from memr1.errors import TrainingError
from memr1.rl.grpo import SharedPromptGrpo
from memr1.rl.guards import NUM_CANDIDATES

log = logging.getLogger(__name__)
SHORTAGES = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory")


class MemoryPreflight(TrainerCallback):
    """Rehearses before the first step of a process, a resumed one's too."""

    def __init__(self, trainer: SharedPromptGrpo, rows: Sequence[dict[str, Any]]) -> None:
        """`rows` are all that the trainer will ever complete: `example_id` and `prompt`, a list of messages."""
        self._trainer = trainer
        self._rows = rows

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raises TrainingError for a shortage of memory."""
        example_id, prompt = longest_prompt(self._trainer, self._rows)
        started = time.monotonic()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            rehearse_training(self._trainer, prompt)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            raise TrainingError(_explain(example_id, len(prompt), args, error)) from error
        shape = f"a prompt of {len(prompt)} tokens, {args.per_device_train_batch_size} completions at once"
        log.info("memory preflight: example %s, %s, %s%.1f s", example_id, shape, _peak(), time.monotonic() - started)


def longest_prompt(trainer: SharedPromptGrpo, rows: Sequence[dict[str, Any]]) -> tuple[str, list[int]]:
    """Id and token ids of the longest prompt, as the trainer tokenises it."""
    candidates = heapq.nlargest(NUM_CANDIDATES, rows, key=lambda row: len(row["prompt"][0]["content"]))
    tokenised, _, _ = trainer._tokenize_prompts([row["prompt"] for row in candidates])
    place = max(range(len(candidates)), key=lambda number: len(tokenised[number]))
    return candidates[place]["example_id"], list(tokenised[place])


def rehearse_training(trainer: SharedPromptGrpo, prompt: Sequence[int]) -> None:
    """Take the memory of one generation and one micro-batch, and give it back. No random number is drawn."""
    settings: Any = trainer.args
    num_rows = settings.per_device_train_batch_size
    num_together = min(num_rows * settings.steps_per_generation, trainer.decode_batch)  # completions decoded at once
    group = settings.num_generations
    devices = [trainer.accelerator.device] if torch.cuda.is_available() else []
    model: Any = trainer.model
    was_training = model.training
    model.train()  # as in a step: gradient checkpointing looks at it
    with torch.random.fork_rng(devices):
        num_new = settings.max_completion_length
        together, _ = build_rows(prompt, num_new, num_together, -(-num_together // group), trainer)
        with trainer.whole_model() as whole:
            fill_cache(whole, together[:, :-num_new].tolist(), num_new)
        num_prompts = -(-num_rows // group) + (num_rows % group > 0)  # a group may be cut at either end
        _run_backward(trainer, *build_rows(prompt, num_new, num_rows, min(num_rows, num_prompts), trainer), num_new)
    model.train(was_training)


def build_rows(
    prompt: Sequence[int], num_new_tokens: int, num_rows: int, num_prompts: int, trainer: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask of shape (rows, tokens): `num_prompts` prompts that differ, and no two rows alike."""
    vocabulary = trainer.causal_model(trainer.model).config.vocab_size
    rows = torch.arange(num_rows)[:, None]
    prompts = torch.tensor(prompt).repeat(num_rows, 1)
    prompts[:, :1] = rows * num_prompts // num_rows % vocabulary
    completions = (rows + torch.arange(num_new_tokens)) % vocabulary
    tokens = torch.cat([prompts, completions], dim=1).to(trainer.accelerator.device)
    return tokens, torch.ones_like(tokens)


def is_shortage(error: Exception) -> bool:
    """Whether the error tells of memory that could not be had, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error).lower() for words in SHORTAGES)


def _run_backward(trainer: SharedPromptGrpo, tokens: torch.Tensor, mask: torch.Tensor, num_new_tokens: int) -> None:
    with _whole_weights(trainer) as module:
        both = _ForwardAndBackward(trainer, module)
        stand_ins = {name: _stand_in(weights) for name, weights in both.named_parameters() if weights.requires_grad}
        functional_call(both, stand_ins, (tokens, mask, num_new_tokens))


class _ForwardAndBackward(torch.nn.Module):
    """Both in one call, because checkpointing runs the module again in the backward pass: on the stand-ins too."""

    def __init__(self, trainer: SharedPromptGrpo, module: Any) -> None:
        super().__init__()
        self.module = module
        self._trainer = trainer

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, num_new_tokens: int) -> None:
        torch.autograd.backward(self._trainer.rehearse(self.module, tokens, mask, num_new_tokens))


@contextmanager
def _whole_weights(trainer: SharedPromptGrpo) -> Iterator[Any]:
    """The module inside the engine. Under ZeRO-3 its weights are gathered, and DeepSpeed's hooks are off."""
    engine = trainer.model_wrapped
    module = trainer.accelerator.unwrap_model(engine)
    if not DistributedBackend(trainer.accelerator).is_zero3:  # type: ignore[no-untyped-call]
        yield module
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(engine.parameters())):
        remove_hooks(engine)
        yield module
        add_hooks(engine)


def _stand_in(weights: Any) -> torch.Tensor:
    twin: Any = weights.detach().requires_grad_()
    twin.register_post_accumulate_grad_hook(_drop_gradient)
    if hasattr(weights, "ds_status"):  # TRL's fused head asks ZeRO-3's weights whether they are whole
        twin.ds_status = weights.ds_status
    return twin  # type: ignore[no-any-return]


def _drop_gradient(weights: torch.Tensor) -> None:
    weights.grad = None


def _explain(example_id: str, num_tokens: int, args: Any, error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0][:200]
    return (
        f"example {example_id}: {args.per_device_train_batch_size} completions of {args.max_completion_length} tokens, "
        f"each after a prompt of {num_tokens} tokens, do not fit into memory in one micro-batch, or the key/value "
        f"cache of a generation does not ({reason}): lower training.micro_batch, training.rollout.batch_size, "
        "max_new_tokens, or retrieval.entries_per_turn and entries_per_speaker"
    )


def _peak() -> str:
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most, " if torch.cuda.is_available() else ""
