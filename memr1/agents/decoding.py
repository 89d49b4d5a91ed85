"""The decoding loop of every model that runs in this process: rollouts in training, and answers outside of it.

`generate` is not used: a prompt that stands in several rows runs once here and its keys and values are held once, rows
that have ended leave the batch, and the cache does not copy what it holds at every token. Small models spend most of
`generate` on these.

The rows of a prompt are decoded as one sequence: at every step each adds a token to it, and a mask lets it see the
prompt and its own tokens only. In shapes: C continued prompts, W rows of each (`slots`), K tokens held of each.

`Any` stands for transformers' classes: their types are too loose to be of help.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM_TOKENS = 32
SHRINK_BELOW = 0.75  # share of slots still decoding under which the ended ones are dropped from the batch
MAX_WIDTH, MAX_EMPTY = 16, 0.25  # of the slots: a row's mask reaches over its neighbours' tokens; those without a row
EVERYBODY, NOBODY, EMPTY = -1, -2, -3  # who may see a token, where it is not one row; a slot without a row


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
    device = next(model.parameters()).device
    ends = torch.tensor(sorted(end_ids), device=device)
    outputs: list[list[int]] = [[] for _ in prompts]
    if log_probs is not None:
        log_probs.extend([] for _ in prompts)
    batch, logits = _Batch.read(model, prompts, device)
    for step in range(max_new_tokens):
        rows, scaled = batch.slots.flatten(), logits.float() / temperature
        chosen = logits.argmax(-1) if draws is None else _draw(scaled, draws[:, step].to(device)[rows.clamp(min=0)])
        _append(outputs, rows, chosen)
        if log_probs is not None:
            _append(log_probs, rows, _score(scaled, chosen))
        tokens = batch.end(chosen.view_as(batch.slots), ends)
        if not len(tokens) or step + 1 == max_new_tokens:
            break
        logits = batch.run(model, tokens)
    return outputs


class _Batch:
    """What is being decoded: which rows, and the keys and values that they continue."""

    def __init__(self, slots: torch.Tensor, seen_by: torch.Tensor, places: torch.Tensor, cache: DynamicCache) -> None:
        self.slots = slots  # (C, W): the row that each continues, or EMPTY
        self._seen_by = seen_by  # (C, K): the row that may look at a token, or EVERYBODY, or NOBODY
        self._places = places  # (C, 1): position of the last token
        self._cache = cache
        self._is_wide = slots.shape[1] > 1

    @classmethod
    def read(cls, model: Any, prompts: Sequence[Sequence[int]], device: torch.device) -> "tuple[_Batch, torch.Tensor]":
        """The batch, and the logits after each prompt: shape (C · W, vocabulary). An equal prompt runs once."""
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows_of.setdefault(tuple(prompt), []).append(row)
        cache = build_cache(model.config)
        tokens, mask = pad_left(list(rows_of), device)
        logits = _run(model, tokens, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache)
        width = choose_width(map(len, rows_of.values())) if _takes_masks(model, cache) else 1
        parts = [
            (number, rows[first : first + width])
            for number, rows in enumerate(rows_of.values())
            for first in range(0, len(rows), width)
        ]
        numbers = torch.tensor([number for number, _ in parts], device=device)
        if len(parts) > len(rows_of):
            cache.batch_select_indices(numbers)
        slots = torch.tensor([rows + [EMPTY] * (width - len(rows)) for _, rows in parts], device=device)
        mask = mask[numbers]
        batch = cls(slots, torch.where(mask > 0, EVERYBODY, NOBODY), mask.sum(-1, keepdim=True) - 1, cache)
        return batch, logits[:, -1][numbers].repeat_interleave(width, dim=0)

    def end(self, chosen: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Let go of the rows that have ended; what is left of the tokens `chosen`. Shapes: (C, W)."""
        self.slots = torch.where(torch.isin(chosen, ends), EMPTY, self.slots)
        alive = self.slots >= 0
        kept, width = alive.any(-1).nonzero()[:, 0], int(alive.sum(-1).max())
        if len(kept) * width >= SHRINK_BELOW * alive.numel():
            return chosen
        order = alive[kept].long().argsort(dim=-1, descending=True, stable=True)[:, :width]
        self.slots, self._seen_by, self._places = (
            self.slots[kept].gather(1, order),
            self._seen_by[kept],
            self._places[kept],
        )
        self._cache.batch_select_indices(kept)
        return chosen[kept].gather(1, order)

    def fill(self, num_new_tokens: int) -> None:
        """Hold so many tokens more of each row."""
        layers: Any = self._cache.layers
        for layer in layers:
            num_rows, heads, _, size = layer.keys.shape
            new = layer.keys.new_zeros(num_rows, heads, num_new_tokens * self.slots.shape[1], size)
            layer.update(new, new)

    def run(self, model: Any, tokens: torch.Tensor) -> torch.Tensor:
        """Logits after one more token of each slot: shapes (C · W, vocabulary) and (C, W)."""
        self._places = self._places + 1
        self._seen_by = torch.cat([self._seen_by, self.slots], dim=1)
        seen_by = self._seen_by[:, None, None]
        mask = (seen_by == EVERYBODY) | (seen_by == self.slots[:, None, :, None])  # (C, 1, W, K)
        if not self._is_wide:
            mask = self._seen_by != NOBODY
        elif model.config._attn_implementation == "eager":  # adds it to the scores
            mask = torch.zeros_like(mask, dtype=model.dtype).masked_fill_(~mask, torch.finfo(model.dtype).min)
        logits = _run(model, tokens, mask, self._places.expand_as(tokens), self._cache, num_logits=tokens.shape[1])
        return logits.flatten(0, 1)


def fill_cache(model: Any, prompts: Sequence[Sequence[int]], num_new_tokens: int) -> None:
    """Take the memory that `decode` takes at its last token."""
    batch, _ = _Batch.read(model, prompts, next(model.parameters()).device)
    batch.fill(num_new_tokens)


def choose_width(sizes: Iterable[int]) -> int:
    """How many of a prompt's rows are decoded as one sequence: as many as leave few slots empty."""
    counts = Counter(sizes)
    num_rows = sum(size * count for size, count in counts.items())
    for width in range(min(MAX_WIDTH, max(counts)), 1, -1):
        num_slots = sum(-(-size // width) * width * count for size, count in counts.items())
        if num_rows >= (1 - MAX_EMPTY) * num_slots:
            return width
    return 1


def _takes_masks(model: Any, cache: DynamicCache) -> bool:
    """Whether attention sees all tokens that a mask of our own shows it, and no others."""
    layers_see_all = all(type(layer) is _RoomyLayer for layer in cache.layers)
    return layers_see_all and model.config._attn_implementation in ("sdpa", "eager")


def _run(
    model: Any,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    places: torch.Tensor,
    cache: DynamicCache,
    *,
    num_logits: int = 1,
) -> torch.Tensor:
    """Logits of the last tokens of every row: shape (rows, num_logits, vocabulary)."""
    output = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=places,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=num_logits,
    )
    logits: torch.Tensor = output.logits
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
