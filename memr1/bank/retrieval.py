"""Which entries answer a query best: dense similarity and BM25, each entry read together with its neighbours.

    neighbours   an utterance ("Marta: I love it!") means little alone: the up to three entries before and behind it of
                 the same sitting (the same `time`) are read with it, each step away at half the weight. An entry in a
                 Memory Manager's own words stands for itself
    dense        cosine with the normalised sum; speakers' names are left out of the query, since half of the bank
                 begins with either of them, and a bank knows whose an entry is
    BM25         idf · tf / (tf + 1.2 · (0.25 + 0.75 · length / mean length)), idf = ln(1 + (N − n + ½) / (n + ½)) over
                 the sums of counts; words without their endings, the query without question words
    order        the sum of both in standard deviations from the mean of the entries that are ranked

Dense deviations count in steps of a half, so that two forms of one fact tie: ties go to the entry that was added
first. Every bank kind ranks by this code, so all give the same order for the same entries.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from memr1.bank.entry import MemoryEntry
from memr1.bank.words import count_words, query_words

Vectors = NDArray[np.float32]
Scores = NDArray[np.float64]

REACH = 3  # entries on either side
STEP_WEIGHT = 0.5
SATURATION, LENGTH_WEIGHT = 1.2, 0.75  # BM25's k1 and b
SIMILARITY_DECIMALS = 6  # the last bits depend on how a batch was padded
DENSE_STEP = 0.5


class EntryIndex:
    """The entries of a bank in the order in which they were added, ready to be ranked: made anew after a change."""

    def __init__(self, entries: Sequence[MemoryEntry], vectors: Vectors) -> None:
        """`vectors`: shape (len(entries), d), every row of length 1."""
        self._entries = list(entries)
        self._speakers = np.array([entry.speaker for entry in entries], dtype=object)
        self._links = link_neighbours(entries)
        self._words = [count_words(entry.text) for entry in entries]
        self._lengths = read_together(np.array([words.length for words in self._words], dtype=float), self._links)
        self._vectors = _read_vectors(vectors, self._links)

    def rank(self, query: str, query_vector: Vectors, *, speaker: str | None, limit: int) -> list[MemoryEntry]:
        """At most `limit` entries (of one speaker, or of all), best first.

        `query_vector`, shape (d,), is that of `embedded_part(query, …)`.
        """
        ranked = np.arange(len(self._entries)) if speaker is None else np.flatnonzero(self._speakers == speaker)
        if limit <= 0 or not len(ranked):
            return []
        similarities = np.round(self._vectors[ranked] @ query_vector, SIMILARITY_DECIMALS).astype(float)
        dense = np.rint(_standardise(similarities) / DENSE_STEP) * DENSE_STEP
        scores = np.round(dense + _standardise(self._score_words(query)[ranked]), SIMILARITY_DECIMALS)
        best = ranked[np.argsort(-scores, kind="stable")[:limit]]
        return [self._entries[place] for place in best]

    def _score_words(self, query: str) -> Scores:
        wanted = query_words(query)
        counts = np.array([[words.counts.get(word, 0) for words in self._words] for word in wanted], dtype=float)
        return score_bm25(
            list(wanted.values()),
            read_together(counts.reshape(len(wanted), len(self._words)), self._links),
            self._lengths,
        )


def embedded_part(query: str, speakers: Iterable[str]) -> str:
    """The query without the names of speakers, whole or in part; the query itself when nothing else is left.

    Only what begins with a capital letter is a name: a speaker "user" takes nothing away.
    """
    names = {name for speaker in speakers for name in (speaker, *speaker.split()) if name[:1].isupper()}
    if not names:
        return query
    listed = "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))
    rest = " ".join(re.sub(rf"\b(?:{listed})\b(?:['’]s\b)?:?", " ", query).split())
    return rest if re.search(r"\w", rest) else query


def score_bm25(times: Sequence[int], counts: Scores, lengths: Scores) -> Scores:
    """The scores of n texts, shape (n,).

    `times`: how often each of w words stands in the query; shapes: counts (w, n), lengths (n,).
    """
    num_texts = len(lengths)
    num_holders = (counts > 0).sum(axis=1)
    weights = np.array(times) * np.log(1.0 + (num_texts - num_holders + 0.5) / (num_holders + 0.5))
    mean_length = max(1.0, float(lengths.sum())) / max(1, num_texts)
    half = SATURATION * (1.0 - LENGTH_WEIGHT + LENGTH_WEIGHT * lengths / mean_length)
    scores: Scores = weights @ (counts / (counts + half))
    return scores


def link_neighbours(entries: Sequence[MemoryEntry]) -> list[tuple[int, Scores]]:
    """(distance, weights): `weights[i]` is how much entries i and i + distance count for each other; no zero rows."""
    sittings = [entry.time if entry.text.startswith(f"{entry.speaker}: ") else None for entry in entries]
    links = []
    for distance in range(1, REACH + 1):
        pairs = zip(sittings, sittings[distance:], strict=False)
        linked = np.array([STEP_WEIGHT**distance if a is not None and a == b else 0.0 for a, b in pairs])
        if linked.any():
            links.append((distance, linked))
    return links


def read_together(values: Scores, links: Sequence[tuple[int, Scores]]) -> Scores:
    """Every entry's values (the last axis counts the entries) with its neighbours' added."""
    total = values.copy()
    for distance, weights in links:
        total[..., :-distance] += weights * values[..., distance:]
        total[..., distance:] += weights * values[..., :-distance]
    return total


def _read_vectors(vectors: Vectors, links: Sequence[tuple[int, Scores]]) -> Vectors:
    if not links:
        return vectors
    together = read_together(vectors.T.astype(float), links).T
    lengths = np.linalg.norm(together, axis=1, keepdims=True)
    return np.ascontiguousarray(together / np.maximum(lengths, 1e-12), dtype=np.float32)


def _standardise(scores: Scores) -> Scores:
    """Standard deviations from the mean; zeros when all are the same."""
    deviation = float(scores.std())
    if deviation < 10.0**-SIMILARITY_DECIMALS:
        return np.zeros_like(scores)
    standardised: Scores = (scores - scores.mean()) / deviation
    return standardised
