"""The decoding loop of every model that runs in this process: rollouts in training, and answers outside of it.

`generate` is not used: a prompt that stands in several rows runs once here, rows that have ended leave the batch, and
the cache does not copy what it holds at every token. Small models spend most of `generate` on these three.

`Any` stands for transformers' classes: their types are too loose to be of help.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM_TOKENS = 32
SHRINK_BELOW = 0.75  # share of rows still decoding under which the ended ones are dropped from the batch


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    end_ids: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    draws: torch.Tensor | None = None,
    log_probs: list[list[float]] | None = None,
) -> list[list[int]]:
    """Token ids after each prompt (none of them empty), the end token included where one was reached.

    Greedy without `draws`: uniform numbers in [0, 1) of shape (prompts, max_new_tokens). A prompt's tokens depend on
    its own row of them alone. A list given as `log_probs` is filled with the tokens', one list per prompt.
    """
    cache, device = build_cache(model.config), next(model.parameters()).device
    ends = torch.tensor(sorted(end_ids), device=device)
    outputs: list[list[int]] = [[] for _ in prompts]
    if log_probs is not None:
        log_probs.extend([] for _ in prompts)
    rows = torch.arange(len(prompts), device=device)  # which prompt each row of the batch continues; -1: none
    logits, mask = _read_prompts(model, prompts, cache, device)
    places = mask.sum(-1, keepdim=True) - 1
    for step in range(max_new_tokens):
        chosen = logits.argmax(-1) if draws is None else _draw(logits.float() / temperature, draws[:, step].to(device))
        _append(outputs, rows, chosen)
        if log_probs is not None:
            _append(log_probs, rows, _score(logits.float() / temperature, chosen))
        rows = torch.where(torch.isin(chosen, ends), -1, rows)
        kept = (rows >= 0).nonzero()[:, 0]
        if len(kept) == 0 or step + 1 == max_new_tokens:
            break
        if len(kept) < SHRINK_BELOW * len(rows):
            rows, chosen, mask, places = rows[kept], chosen[kept], mask[kept], places[kept]
            draws = draws if draws is None else draws[kept]
            cache.batch_select_indices(kept)
        places = places + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = _run(model, chosen[:, None], mask, places, cache)
    return outputs


def _read_prompts(
    model: Any, prompts: Sequence[Sequence[int]], cache: DynamicCache, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits after each prompt, and the mask of the cache's tokens; a prompt that stands in several rows runs once."""
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    tokens, mask = pad_left(distinct, device)
    logits = _run(model, tokens, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache)
    if len(distinct) == len(prompts):
        return logits, mask
    place_of = {prompt: place for place, prompt in enumerate(distinct)}
    repeats = torch.tensor([place_of[tuple(prompt)] for prompt in prompts], device=device)
    cache.batch_select_indices(repeats)
    return logits[repeats], mask[repeats]


def _run(
    model: Any, tokens: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, cache: DynamicCache
) -> torch.Tensor:
    """Logits of the last token of every row: shape (rows, vocabulary)."""
    output = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=places,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: torch.Tensor = output.logits[:, -1]
    return logits


def build_cache(config: Any) -> DynamicCache:
    """The cache that fits the model, its plain layers replaced by roomy ones."""
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers' caches are half typed
    """One layer's keys and values, with room for tokens to come: shape (rows, heads, tokens, head size).

    The stock layer copies everything it holds at every token, which is most of a small model's decoding time.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self._rooms: list[torch.Tensor] = []  # what `keys` and `values` are the filled parts of

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new tokens; everything held so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if not self._rooms or end > self._rooms[0].shape[-2]:
            held = (self.keys, self.values) if length else (None, None)
            self._rooms = [_make_room(*pair) for pair in zip(held, (key_states, value_states), strict=True)]
        for room, new in zip(self._rooms, (key_states, value_states), strict=True):
            room[..., length:end, :] = new
        self.keys, self.values = (room[..., :end, :] for room in self._rooms)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows only."""
        super().batch_select_indices(indices)
        self._rooms = []


def _make_room(held: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
    """A tensor for what is held, what is new, and ROOM_TOKENS more; only what is held is filled in."""
    length = 0 if held is None else held.shape[-2]
    room = new.new_empty(*new.shape[:-2], length + new.shape[-2] + ROOM_TOKENS, new.shape[-1])
    if held is not None:
        room[..., :length, :] = held
    return room


def pad_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask, both of shape (prompts, longest). What stands under a mask of 0 is never looked at."""
    longest = max(map(len, prompts))
    tokens = [[0] * (longest - len(ids)) + list(ids) for ids in prompts]
    mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def _draw(logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """The token in whose share of [0, 1) a row's number falls. Shapes: (rows, vocabulary), result and draws (rows,)."""
    ends = torch.softmax(logits, -1).cumsum(-1, dtype=torch.float64)
    chosen = torch.searchsorted(ends, (draws * ends[:, -1])[:, None], right=True)[:, 0]
    return chosen.clamp(max=ends.size(-1) - 1)


def _append(outputs: list[list[Any]], rows: torch.Tensor, values: torch.Tensor) -> None:
    """Give each prompt that is still continued its value. Shapes of `rows` and `values`: (rows,)."""
    for row, value in zip(rows.tolist(), values.tolist(), strict=True):
        if row >= 0:
            outputs[row].append(value)


def _score(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the tokens chosen. Shapes: (rows, vocabulary), result and `chosen` (rows,)."""
    return torch.log_softmax(logits, -1).gather(-1, chosen[:, None])[:, 0]
