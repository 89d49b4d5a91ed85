"""A causal language model in this process. Prompts are sorted by length, left-padded and decoded in batches.

The decoding loop is our own: rows that have ended leave the batch, which `generate` cannot do, and the small models
that memr1 ships spend most of `generate` outside the network.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.utils import logging as hub_logging

from memr1.errors import AgentError, CheckpointMissing, GenerationFailed

log = logging.getLogger(__name__)
WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")
ROOM_TOKENS = 32
SHRINK_BELOW = 0.75  # share of rows still decoding under which the ended ones are dropped from the batch


class TransformersGenerator:
    """See `memr1.agents.generation.Generator`."""

    def __init__(self, model: str | Path, *, batch_size: int = 64, adapter: Path | None = None, seed: int = 0) -> None:
        """`model` is a local folder of full weights or a hub id, `adapter` a folder of LoRA weights for it.

        Raises CheckpointMissing for a folder that holds no weights.
        """
        self.name = str(adapter or model)
        self._batch_size = batch_size
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = load_model(model, adapter).to(self._device).eval()
        self._tokenizer = load_tokenizer(model)
        self._sampling = torch.Generator(device=self._device).manual_seed(seed)
        self._end_ids = torch.tensor(_end_ids(self._model, self._tokenizer), device=self._device)

    def sample_texts(self, prompts: Sequence[str], *, max_new_tokens: int, temperature: float = 0.0) -> list[str]:
        """One completion per prompt, in order. Equal prompts are decoded once when decoding is greedy.

        Raises GenerationFailed for a prompt that leaves no room in the model's context.
        """
        wanted = list(dict.fromkeys(prompts)) if temperature == 0 else list(prompts)
        encoded = [self._encode(prompt, max_new_tokens) for prompt in wanted]
        texts = [""] * len(wanted)
        for rows in _batches([len(ids) for ids in encoded], self._batch_size):
            outputs = self._decode([encoded[row] for row in rows], max_new_tokens, temperature)
            for row, ids in zip(rows, outputs, strict=True):
                texts[row] = self._tokenizer.decode(ids, skip_special_tokens=True)
        if temperature != 0:
            return texts
        by_prompt = dict(zip(wanted, texts, strict=True))
        return [by_prompt[prompt] for prompt in prompts]

    def _encode(self, prompt: str, max_new_tokens: int) -> list[int]:
        if self._tokenizer.chat_template is None:
            ids = self._tokenizer(prompt)["input_ids"]
        else:
            messages = [{"role": "user", "content": prompt}]
            ids = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        room = getattr(self._model.config, "max_position_embeddings", None)
        if room is not None and len(ids) + max_new_tokens > room:
            raise GenerationFailed(
                f"a prompt of {len(ids)} tokens and {max_new_tokens} new ones do not fit into the {room} of "
                f"{self.name}: lower retrieval.entries_per_turn or entries_per_speaker, or max_new_tokens"
            )
        return list(ids) or self._end_ids.tolist()[:1]  # an empty prompt still needs a token to continue

    @torch.inference_mode()
    def _decode(self, prompts: list[list[int]], max_new_tokens: int, temperature: float) -> list[list[int]]:
        """Token ids after each prompt, up to and without the end token."""
        tokens, mask = self._pad(prompts)
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        outputs: list[list[int]] = [[] for _ in prompts]
        rows = torch.arange(len(prompts), device=self._device)  # which prompt each row of the batch continues; -1: none
        cache = _build_cache(self._model.config)
        for _ in range(max_new_tokens):
            logits = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen = self._choose(logits, temperature)
            rows = torch.where(torch.isin(chosen, self._end_ids), -1, rows)
            for row, token in zip(rows.tolist(), chosen.tolist(), strict=True):
                if row >= 0:
                    outputs[row].append(token)
            kept = (rows >= 0).nonzero()[:, 0]
            if len(kept) == 0:
                break
            if len(kept) < SHRINK_BELOW * len(rows):
                rows, chosen, mask, places = rows[kept], chosen[kept], mask[kept], places[kept]
                cache.batch_select_indices(kept)
            tokens, places = chosen[:, None], places[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        return outputs

    def _pad(self, prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(map(len, prompts))
        padding = self._tokenizer.pad_token_id or 0
        tokens = [[padding] * (longest - len(ids)) + ids for ids in prompts]
        mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
        return torch.tensor(tokens, device=self._device), torch.tensor(mask, device=self._device)

    def _choose(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        if temperature == 0:
            return logits.argmax(-1)
        shares = torch.softmax(logits.float() / temperature, -1)
        return torch.multinomial(shares, 1, generator=self._sampling)[:, 0]


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


def _build_cache(config: Any) -> DynamicCache:
    """The cache that fits the model, its plain layers replaced by roomy ones."""
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def load_model(location: str | Path, adapter: Path | None = None) -> Any:
    """A causal model from a folder of weights or a hub id, with a LoRA adapter on it. Raises CheckpointMissing."""
    for folder in (Path(location), adapter):
        _refuse_empty(folder)
    hub_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # one bar per loaded model would drown the stage lines
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(str(location), dtype=dtype)
        return model if adapter is None else _load_adapter(model, adapter)
    except (OSError, ValueError) as error:
        raise CheckpointMissing(
            f"cannot load a model from {location!s}: {error}. Name a folder with weights, or a hub id while online "
            "(HF_HUB_OFFLINE=0)."
        ) from error


def load_tokenizer(location: str | Path) -> Any:
    """The tokenizer beside the weights, padding on the left. Raises CheckpointMissing."""
    try:
        return AutoTokenizer.from_pretrained(str(location), padding_side="left")
    except (OSError, ValueError) as error:
        raise CheckpointMissing(f"cannot load a tokenizer from {location!s}: {error}") from error


def merge_adapter(base: str | Path, adapter: Path, folder: Path) -> None:
    """Write a model whose weights already contain the adapter, with its tokeniser. Raises CheckpointMissing."""
    load_model(base, adapter).merge_and_unload().save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)


def _load_adapter(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter))


def _refuse_empty(folder: Path | None) -> None:
    if folder is not None and folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in WEIGHT_PATTERNS):
        raise CheckpointMissing(
            f"{folder} holds no model weights ({' or '.join(WEIGHT_PATTERNS)}): name a folder written by training or "
            "by save_pretrained"
        )


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    ids = {number for number in [*listed, tokenizer.eos_token_id] if number is not None}
    if not ids:
        raise AgentError("the model names no end-of-text token: set eos_token_id in its generation_config.json")
    return sorted(ids)


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Rows in batches of like length, longest first, so that a shortage of memory shows at once."""
    rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]
