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
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

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
    """The entries of a bank in the order in which they were added, ready to be ranked."""

    def __init__(self, entries: Sequence[MemoryEntry], columns: "EntryColumns") -> None:
        """`build_index` makes the first one of a bank, `changed_to` every other."""
        self.entries = entries
        self.speakers = {entry.speaker for entry in entries}
        self._columns = columns
        self._links = link_neighbours(columns.sittings)
        self._lengths = read_together(columns.lengths, self._links)
        self._vectors = _read_vectors(columns.vectors, self._links)

    def changed_to(self, entries: Sequence[MemoryEntry], embed: Callable[[Sequence[str]], Vectors]) -> "EntryIndex":
        """The index of what the bank holds now. Only what lies between the entries that begin and end both is read."""
        start = _count_same(self.entries, entries)
        most = min(len(self.entries), len(entries)) - start
        num_last = min(most, _count_same(reversed(self.entries), reversed(entries)))
        changed = entries[start : len(entries) - num_last]
        columns = EntryColumns.read(changed, embed([entry.text for entry in changed]))
        parts = self._columns.cut(0, start), columns, self._columns.cut(len(self.entries) - num_last, len(self.entries))
        return EntryIndex(entries, EntryColumns.join(parts))

    def rank(self, query: str, query_vector: Vectors, *, speaker: str | None, limit: int) -> list[MemoryEntry]:
        """At most `limit` entries (of one speaker, or of all), best first.

        `query_vector`, shape (d,), is that of `embedded_part(query, …)`.
        """
        ranked = np.arange(len(self.entries)) if speaker is None else np.flatnonzero(self._columns.speakers == speaker)
        if limit <= 0 or not len(ranked):
            return []
        similarities = np.round((self._vectors @ query_vector)[ranked], SIMILARITY_DECIMALS).astype(float)
        dense = np.rint(_standardise(similarities) / DENSE_STEP) * DENSE_STEP
        scores = np.round(dense + _standardise(self._score_words(query)[ranked]), SIMILARITY_DECIMALS)
        return [self.entries[place] for place in ranked[_best_places(scores, limit)]]

    def _score_words(self, query: str) -> Scores:
        wanted = query_words(query)
        counts = np.zeros((len(wanted), len(self.entries)))
        for row, word in zip(counts, wanted, strict=True):
            held = self._columns.words == hash(word)
            row[self._columns.owners[held]] = self._columns.counts[held]
        return score_bm25(list(wanted.values()), read_together(counts, self._links), self._lengths)


def build_index(entries: Sequence[MemoryEntry], vectors: Vectors) -> EntryIndex:
    """`vectors`: shape (len(entries), d), every row of length 1."""
    return EntryIndex(entries, EntryColumns.read(entries, vectors))


class EntryColumns(NamedTuple):
    """What ranking reads of n entries; and of the different words of each, w of all of them, one behind the other."""

    speakers: NDArray[np.object_]  # (n,)
    sittings: NDArray[np.int64]  # (n,): entries that may be read together have the same; 0 for one that stands alone
    lengths: Scores  # (n,): words
    vectors: Vectors  # (n, d)
    words: NDArray[np.int64]  # (w,): by `hash`
    owners: NDArray[np.int64]  # (w,): places of the entries, ascending
    counts: Scores  # (w,)

    @classmethod
    def read(cls, entries: Sequence[MemoryEntry], vectors: Vectors) -> "EntryColumns":
        """Of these entries; `vectors` has a row for each."""
        texts = [count_words(entry.text) for entry in entries]
        num_words = np.array([len(text.counts) for text in texts], dtype=np.int64)
        return cls(
            np.array([entry.speaker for entry in entries], dtype=object),
            np.array([sitting_of(entry) for entry in entries], dtype=np.int64),
            np.array([text.length for text in texts], dtype=float),
            vectors,
            np.array([hash(word) for text in texts for word in text.counts], dtype=np.int64),
            np.repeat(np.arange(len(entries)), num_words),
            np.array([count for text in texts for count in text.counts.values()], dtype=float),
        )

    def cut(self, start: int, end: int) -> "EntryColumns":
        """Of these entries alone."""
        first, last = np.searchsorted(self.owners, (start, end))
        part = EntryColumns._make(
            [*(column[start:end] for column in self[:4]), *(column[first:last] for column in self[4:])]
        )
        return part._replace(owners=part.owners - start)

    @staticmethod
    def join(parts: Sequence["EntryColumns"]) -> "EntryColumns":
        """Of the entries of all parts, one part behind the other."""
        starts = np.cumsum([0, *(len(part.speakers) for part in parts)])
        moved = [part._replace(owners=part.owners + start) for part, start in zip(parts, starts, strict=False)]
        return EntryColumns._make(np.concatenate(columns) for columns in zip(*moved, strict=True))


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


def sitting_of(entry: MemoryEntry) -> int:
    """What all utterances of one sitting have in common; 0 for an entry that is no utterance."""
    return hash(entry.time) or 1 if entry.text.startswith(f"{entry.speaker}: ") else 0


def link_neighbours(sittings: NDArray[np.int64]) -> list[tuple[int, Scores]]:
    """(distance, weights): `weights[i]` is how much entries i and i + distance count for each other; no zero rows."""
    links = []
    for distance in range(1, REACH + 1):
        here, there = sittings[:-distance], sittings[distance:]
        linked = np.where((here == there) & (here != 0), STEP_WEIGHT**distance, 0.0)
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


def _count_same(these: Iterable[object], those: Iterable[object]) -> int:
    """How many of both, from the first on, are the very same."""
    count = 0
    for one, other in zip(these, those, strict=False):
        if one is not other:
            break
        count += 1
    return count


def _best_places(scores: Scores, limit: int) -> NDArray[np.int64]:
    """The places of the highest scores, best first; of equals the earlier first."""
    places = np.arange(len(scores))
    if limit < len(scores):
        least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        places = np.flatnonzero(scores >= least)
    best: NDArray[np.int64] = places[np.argsort(-scores[places], kind="stable")[:limit]]
    return best


def _standardise(scores: Scores) -> Scores:
    """Standard deviations from the mean; zeros when all are the same."""
    deviation = float(scores.std())
    if deviation < 10.0**-SIMILARITY_DECIMALS:
        return np.zeros_like(scores)
    standardised: Scores = (scores - scores.mean()) / deviation
    return standardised
