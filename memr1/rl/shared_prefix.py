"""Runs a prompt once for all the completions of its rollout group in the loss (generation: memr1.agents.decoding).

A GRPO group repeats one prompt G times and stock TRL pays for it G times. Here each distinct prompt P runs once, its
key/value cache is repeated over the batch, and only the completions R run per row: P + G·R tokens instead of G·(P+R).
Log-probabilities and gradients stay the same up to rounding. All of it happens inside one call of the model's
`forward`, which is what DistributedDataParallel and DeepSpeed wrap.

`Any` stands for a transformers model: its classes are typed too loosely to be of help.

Left out: models whose cache cannot be indexed by row, and gradient checkpointing (it turns the cache off). Both fall
back to the stock path, and say so once.
"""

import functools
import logging
import types
from typing import Any

import torch
from transformers import DynamicCache

log = logging.getLogger(__name__)


def share_prompts(model: Any) -> None:
    """Teach a causal model (already given TRL's fused head) the keyword `shared_prompt_tokens`."""
    stock_forward = model.forward

    @functools.wraps(type(model).forward)  # callers look at its signature
    def forward(self: Any, *args: Any, shared_prompt_tokens: int = 0, **kwargs: Any) -> Any:
        if shared_prompt_tokens < 2 or not _can_share(self):
            return stock_forward(*args, **kwargs)
        return _shared_forward(self, stock_forward, shared_prompt_tokens, **kwargs)

    model.forward = types.MethodType(forward, model)


def _shared_forward(
    model: Any,
    stock_forward: Any,
    prompt_tokens: int,
    *,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    **kwargs: Any,
) -> Any:
    """The last prompt token runs with the completion: its output predicts the completion's first token."""
    cached = prompt_tokens - 1
    cache = _prompt_cache(model, input_ids[:, :cached], attention_mask[:, :cached])
    return stock_forward(
        input_ids=input_ids[:, cached:],
        attention_mask=attention_mask,
        labels=labels[:, cached:],
        past_key_values=cache,
        **kwargs,
    )


def _prompt_cache(model: Any, prompts: torch.Tensor, mask: torch.Tensor) -> DynamicCache:
    """Key/value cache of every row, computed once per distinct row. Shapes of `prompts` and `mask`: (rows, tokens)."""
    rows, row_of = torch.unique(torch.stack([prompts, mask.to(prompts.dtype)], dim=-1), dim=0, return_inverse=True)
    distinct, distinct_mask = rows[..., 0], rows[..., 1].to(mask.dtype)
    cache = DynamicCache(config=model.config)
    model.base_model(
        input_ids=distinct,
        attention_mask=distinct_mask,
        past_key_values=cache,
        use_cache=True,
    )
    cache.batch_select_indices(row_of)
    return cache


def _can_share(model: Any) -> bool:
    if model.training and getattr(model, "is_activation_checkpointing", False):
        _warn_once("gradient checkpointing turns the key/value cache off: prompts are not shared in the loss")
        return False
    return True


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)
