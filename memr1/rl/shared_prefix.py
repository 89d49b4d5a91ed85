"""Runs a prompt once for all the completions of its rollout group in the loss (generation: memr1.agents.decoding).

A GRPO group repeats one prompt G times and stock TRL pays for it G times. Here each distinct prompt P runs once, its
keys and values are repeated over the batch, and only the completions R run per row: P + G·R tokens instead of G·(P+R).
Log-probabilities and gradients stay the same up to rounding. All of it happens inside one call of the model's
`forward`, which is what DistributedDataParallel and DeepSpeed wrap.

Gradient checkpointing runs a layer once more in the backward pass, so a layer must find the same cache both times: the
caches here change nothing when they are updated again. Transformers, which cannot know that, is told so for the length
of a forward pass.

`Any` stands for a transformers model: its classes are typed too loosely to be of help.

Left out: models with layers of sliding attention, and checkpointing of the reentrant kind (TRL asks for it with LoRA
under ZeRO-3), which hands out keys and values without their gradients. Both take the stock path, and say so once.
"""

import functools
import logging
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

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
    with _cache_under_checkpointing(model):
        cache = _prompt_cache(model, input_ids[:, :cached], attention_mask[:, :cached])
        return stock_forward(
            input_ids=input_ids[:, cached:],
            attention_mask=attention_mask,
            labels=labels[:, cached:],
            past_key_values=cache,
            use_cache=False,
            **kwargs,
        )


def _prompt_cache(model: Any, prompts: torch.Tensor, mask: torch.Tensor) -> DynamicCache:
    """Keys and values of every row, computed once per distinct row. Shapes of `prompts` and `mask`: (rows, tokens)."""
    rows, row_of = torch.unique(torch.stack([prompts, mask.to(prompts.dtype)], dim=-1), dim=0, return_inverse=True)
    distinct, distinct_mask = rows[..., 0], rows[..., 1].to(mask.dtype)
    cache = DynamicCache(config=model.config)
    cache.layers = [_PromptLayer() for _ in cache.layers]  # type: ignore[no-untyped-call]
    model.base_model(
        input_ids=distinct,
        attention_mask=distinct_mask,
        past_key_values=cache,
        use_cache=False,  # of the model's own making; it fills the one that it is given all the same
    )
    prefixes = DynamicCache(config=model.config)  # another one: the prompt's layers run again in the backward pass
    prefixes.layers = [_PrefixLayer(layer, row_of) for layer in cache.layers]
    return prefixes


class _PromptLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers' caches are half typed
    """Holds the keys and values of its first update; a second one, in the backward pass, is the same again."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is handed in is all there is."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        return key_states, value_states


class _PrefixLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A prompt's keys and values, repeated over the rows: what follows is put behind them and not kept."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, prompt: Any, row_of: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values = prompt.keys[row_of], prompt.values[row_of]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of prompt and completion: shape (rows, heads, tokens, head size)."""
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)


def _can_share(model: Any) -> bool:
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        _warn_once("this model's layers do not all attend to everything: prompts are not shared in the loss")
        return False
    if model.training and any(map(_is_reentrant, _checkpointed_layers(model))):
        _warn_once("reentrant gradient checkpointing (LoRA under ZeRO-3): prompts are not shared in the loss")
        return False
    return True


@contextmanager
def _cache_under_checkpointing(model: Any) -> Iterator[None]:
    layers = _checkpointed_layers(model)
    for layer in layers:
        layer._can_checkpoint_with_cache = True
    try:
        yield
    finally:
        for layer in layers:
            del layer._can_checkpoint_with_cache  # an attribute of its class again


def _checkpointed_layers(model: Any) -> list[Any]:
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    return [layer for layer in layers if layer.gradient_checkpointing]


def _is_reentrant(layer: Any) -> bool:
    return bool(layer._gradient_checkpointing_func.keywords.get("use_reentrant"))


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)
