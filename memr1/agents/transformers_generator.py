"""A causal language model in this process. Prompts are sorted by length, left-padded and decoded in batches."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hub_logging

from memr1.agents.decoding import decode
from memr1.errors import AgentError, CheckpointMissing, GenerationFailed

log = logging.getLogger(__name__)
ATTENTION_CELLS = {"cpu": 2**22, "cuda": 2**32}  # rows times length squared: what padded rows may cost in one batch
WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")


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
        self._sampling = torch.Generator().manual_seed(seed)
        self._end_ids = _end_ids(self._model, self._tokenizer)

    def sample_texts(self, prompts: Sequence[str], *, max_new_tokens: int, temperature: float = 0.0) -> list[str]:
        """One completion per prompt, in order. Equal prompts are decoded once when decoding is greedy.

        Raises GenerationFailed for a prompt that leaves no room in the model's context.
        """
        wanted = list(dict.fromkeys(prompts)) if temperature == 0 else list(prompts)
        encoded = [self._encode(prompt, max_new_tokens) for prompt in wanted]
        texts = [""] * len(wanted)
        lengths = [len(ids) + max_new_tokens for ids in encoded]
        for rows in _batches(lengths, self._batch_size, ATTENTION_CELLS[self._device.type]):
            outputs = self._decode([encoded[row] for row in rows], max_new_tokens, temperature)
            for row, ids in zip(rows, outputs, strict=True):
                texts[row] = self._tokenizer.decode(ids, skip_special_tokens=True)
        if temperature != 0:
            return texts
        by_prompt = dict(zip(wanted, texts, strict=True))
        return [by_prompt[prompt] for prompt in prompts]

    @torch.inference_mode()
    def _decode(self, prompts: list[list[int]], max_new_tokens: int, temperature: float) -> list[list[int]]:
        draws = torch.rand(len(prompts), max_new_tokens, dtype=torch.float64, generator=self._sampling)
        outputs = decode(
            self._model,
            prompts,
            end_ids=self._end_ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            draws=draws if temperature else None,
        )
        return [ids[:-1] if ids and ids[-1] in self._end_ids else ids for ids in outputs]

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
        return list(ids) or self._end_ids[:1]  # an empty prompt still needs a token to continue


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


def _batches(lengths: Sequence[int], max_rows: int, max_cells: int) -> Iterator[list[int]]:
    """Rows in batches of like length, longest first, so that a shortage of memory shows at once.

    Rows times the longest squared stay within `max_cells`; a single row above that gets a batch of its own.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) == max_rows or (len(batch) + 1) * lengths[batch[0]] ** 2 > max_cells):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
