"""Which entries answer a query best: dense similarity and BM25, joined by reciprocal rank fusion.

    dense    cosine of unit vectors, compared to six decimals (the last bits depend on how a batch was padded)
    BM25     idf · tf / (tf + 1.2 · (0.25 + 0.75 · length / mean length)), idf = ln(1 + (N − n + ½) / (n + ½));
             words without their endings; a word that stands twice in the query counts twice
    fusion   Σ 1 / (10 + rank) over the two lists; an entry that shares no word with the query is in the first only

Ties go to the entry that was added first, so every bank kind gives the same order for the same entries.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memr1.bank.entry import MemoryEntry
from memr1.bank.words import count_words

Vectors = NDArray[np.float32]

RANK_OFFSET = 10  # Cormack et al. (2009) use 60; 10 finds more evidence turns among the first 5 to 30 of LoCoMo
SATURATION, LENGTH_WEIGHT = 1.2, 0.75  # BM25's k1 and b
SIMILARITY_DECIMALS = 6


def rank_entries(
    query: str, query_vector: Vectors, entries: Sequence[MemoryEntry], vectors: Vectors, limit: int
) -> list[MemoryEntry]:
    """At most `limit` entries, best first.

    `entries` stand in the order in which they were added. Shapes: query_vector (d,), vectors (len(entries), d), every
    row of length 1.
    """
    if limit <= 0 or not entries:
        return []
    fused = _dense_scores(query_vector, vectors)
    for rank, place in enumerate(_lexical_order(query, entries), 1):
        fused[place] += 1.0 / (RANK_OFFSET + rank)
    best = sorted(range(len(entries)), key=fused.__getitem__, reverse=True)  # stable: ties keep the order
    return [entries[place] for place in best[:limit]]


def score_bm25(query: str, texts: Sequence[str]) -> dict[int, float]:
    """Place in `texts` → BM25 score, for the texts that share a word with the query."""
    counted = [count_words(text) for text in texts]
    num_texts = len(counted)
    slope = SATURATION * LENGTH_WEIGHT * num_texts / max(1, sum([words.length for words in counted]))
    floor = SATURATION * (1.0 - LENGTH_WEIGHT)
    scores: dict[int, float] = {}
    for word, times in count_words(query).counts.items():
        holders = [place for place, words in enumerate(counted) if word in words.counts]
        weight = times * math.log(1.0 + (num_texts - len(holders) + 0.5) / (len(holders) + 0.5))
        for place in holders:
            count, length = counted[place].counts[word], counted[place].length
            scores[place] = scores.get(place, 0.0) + weight * count / (count + floor + slope * length)
    return scores


def _dense_scores(query_vector: Vectors, vectors: Vectors) -> list[float]:
    similarities = np.round(vectors @ query_vector, SIMILARITY_DECIMALS)
    scores = [0.0] * len(vectors)
    for rank, place in enumerate(np.argsort(-similarities, kind="stable").tolist(), 1):
        scores[place] = 1.0 / (RANK_OFFSET + rank)
    return scores


def _lexical_order(query: str, entries: Sequence[MemoryEntry]) -> list[int]:
    scores = score_bm25(query, [entry.text for entry in entries])
    return sorted(sorted(scores), key=scores.__getitem__, reverse=True)
