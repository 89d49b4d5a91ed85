"""Ranking, against numbers computed by hand."""

from datetime import datetime
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1.bank.embedding import HashEmbedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.retrieval import rank_entries, score_bm25
from memr1.bank.words import count_words, cut_ending, split_words


def entries_of(texts: list[str]) -> list[MemoryEntry]:
    time = datetime(2024, 5, 1)
    return [MemoryEntry(id=str(n), scope="c", speaker="s", text=text, time=time) for n, text in enumerate(texts, 1)]


def rank(query: str, texts: list[str], similarities: list[float], limit: int = 99) -> list[str]:
    """Ids in order, for texts whose dense similarity to the query is given."""
    vectors = np.array([[value, (1 - value**2) ** 0.5] for value in similarities], dtype=np.float32)
    return [entry.id for entry in rank_entries(query, np.array([1, 0], np.float32), entries_of(texts), vectors, limit)]


def test_words_are_lower_case_runs_of_letters_and_digits() -> None:
    assert split_words("Marta's 2nd dog, Émile_X!") == ["marta", "s", "2nd", "dog", "émile", "x"]
    assert count_words("a b a") == ({"a": 2, "b": 1}, 3)


def test_words_meet_without_their_endings() -> None:
    assert {cut_ending(word) for word in ("live", "lives", "living", "lived")} == {"liv"}
    assert [cut_ending(word) for word in ("cities", "city", "dress", "yes", "she", "is", "2nd")] == [
        "cit", "cit", "dress", "yes", "she", "is", "2nd",
    ]  # fmt: skip
    assert list(score_bm25("Where does Marta live?", ["she lives here", "she stays"])) == [0]


def test_bm25_by_hand() -> None:
    """Two texts of 3 and 1 words: mean length 2; "tea" stands in both, "green" in the first."""
    scores = score_bm25("green tea", ["green tea tea", "tea"])
    common, rare = log(1 + 0.5 / 2.5), log(1 + 1.5 / 1.5)
    long, short = 1.2 * (0.25 + 0.75 * 3 / 2), 1.2 * (0.25 + 0.75 * 1 / 2)
    assert scores == {
        0: pytest.approx(rare * 1 / (1 + long) + common * 2 / (2 + long)),
        1: pytest.approx(common * 1 / (1 + short)),
    }


def test_a_word_that_stands_twice_in_the_query_counts_twice() -> None:
    assert score_bm25("tea tea", ["tea", "x"])[0] == pytest.approx(2 * score_bm25("tea", ["tea", "x"])[0])


def test_texts_that_share_no_word_have_no_score() -> None:
    assert score_bm25("green tea", ["coffee", ""]) == {}
    assert score_bm25("", ["coffee"]) == {}


def test_fusion_adds_the_reciprocal_ranks_of_both_lists() -> None:
    """Dense order 2, 3, 1; words are shared with 1 only: 1/13 + 1/11 beats 1/11 and 1/12."""
    assert rank("tea", ["tea", "x", "y"], [0.1, 0.9, 0.5]) == ["1", "2", "3"]


def test_ties_go_to_the_entry_that_was_added_first() -> None:
    assert rank("z", ["a", "b", "c"], [0.5, 0.5, 0.5]) == ["1", "2", "3"]
    assert rank("tea", ["tea", "tea", "x"], [0.5, 0.5, 0.5]) == ["1", "2", "3"]
    # Swapped places in the two lists are a tie too: 1/11 + 1/12 either way.
    assert rank("tea", ["tea and more", "tea"], [0.9, 0.1]) == ["1", "2"]
    assert rank("tea", ["tea", "tea and more"], [0.1, 0.9]) == ["1", "2"]


def test_similarities_that_differ_by_rounding_only_are_a_tie() -> None:
    assert rank("z", ["a", "b"], [0.5, 0.5000001]) == ["1", "2"]


def test_the_limit_cuts_the_end() -> None:
    assert rank("z", ["a", "b", "c"], [0.1, 0.9, 0.5], limit=2) == ["2", "3"]
    assert rank("z", ["a"], [0.1], limit=0) == []
    assert rank("z", [], [], limit=3) == []


@settings(deadline=None)
@given(
    st.lists(st.text(alphabet="ab cé'", max_size=8), max_size=12),
    st.text(alphabet="ab c", max_size=6),
    st.integers(0, 15),
)
def test_a_ranking_is_a_prefix_of_the_full_one_and_repeats_itself(texts: list[str], query: str, limit: int) -> None:
    embedder, entries = HashEmbedder(16), entries_of(texts)
    vectors, query_vector = embedder.embed(texts), embedder.embed([query])[0]
    full = rank_entries(query, query_vector, entries, vectors, 99)
    assert sorted(entry.id for entry in full) == sorted(entry.id for entry in entries)
    assert rank_entries(query, query_vector, entries, vectors, limit) == full[:limit]
