"""Vectors on disk, by the model that made them and the text."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memr1.cache_file import CacheFile, content_key

Vectors = NDArray[np.float32]


class VectorFile:
    """Texts → vectors of one model. Several models and processes may share a file."""

    def __init__(self, path: Path, model: str, dimension: int) -> None:
        self._file = CacheFile(path, "vectors")
        self._model, self._dimension = model, dimension

    def read(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of those texts that are known."""
        by_key = {content_key(self._model, text): text for text in texts}
        return {
            by_key[key]: np.frombuffer(blob, dtype="<f4").astype(np.float32)
            for key, blob in self._file.read(list(by_key)).items()
            if len(blob) == 4 * self._dimension
        }

    def write(self, vectors: Mapping[str, Vectors]) -> None:
        """Keep the vectors of these texts, all in one transaction."""
        self._file.write(
            {content_key(self._model, text): vector.astype("<f4").tobytes() for text, vector in vectors.items()}
        )
