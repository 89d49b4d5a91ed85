"""Ranking, against numbers computed by hand."""

from datetime import datetime, timedelta
from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memr1.bank.embedding import HashEmbedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryBank
from memr1.bank.retrieval import build_index, embedded_part, link_neighbours, read_together, score_bm25, sitting_of
from memr1.bank.words import count_words, cut_ending, query_words, split_words
from tests.bank_histories import CountingEmbedder

NOON = datetime(2024, 5, 1, 12)


def entries_of(texts: list[str], speakers: str = "s", hours: list[int] | None = None) -> list[MemoryEntry]:
    """One entry per text, spoken in turn by `speakers` (a letter each), `hours` after noon."""
    return [
        MemoryEntry(
            id=str(number),
            scope="c",
            speaker=speakers[(number - 1) % len(speakers)],
            text=text,
            time=NOON + timedelta(hours=hours[number - 1] if hours else 0),
        )
        for number, text in enumerate(texts, 1)
    ]


def sittings_of(entries: list[MemoryEntry]) -> NDArray[np.int64]:
    return np.array([sitting_of(entry) for entry in entries])


def rank(query: str, texts: list[str], similarities: list[float], limit: int = 99) -> list[str]:
    """Ids in order, for texts whose dense similarity to the query is given."""
    vectors = np.array([[value, (1 - value**2) ** 0.5] for value in similarities], dtype=np.float32).reshape(-1, 2)
    index = build_index(entries_of(texts), vectors)
    return [entry.id for entry in index.rank(query, np.array([1, 0], np.float32), speaker=None, limit=limit)]


def test_words_are_lower_case_runs_of_letters_and_digits() -> None:
    assert split_words("Marta's 2nd dog, Émile_X!") == ["marta", "s", "2nd", "dog", "émile", "x"]
    assert count_words("a b a") == ({"a": 2, "b": 1}, 3)


def test_words_meet_without_their_endings() -> None:
    assert {cut_ending(word) for word in ("live", "lives", "living", "lived")} == {"liv"}
    assert [cut_ending(word) for word in ("cities", "city", "dress", "yes", "she", "is", "2nd")] == [
        "cit", "cit", "dress", "yes", "she", "is", "2nd",
    ]  # fmt: skip


def test_a_query_looks_for_no_words_of_grammar() -> None:
    assert query_words("Where does Marta's dog live, and what dogs?") == {"marta": 1, "dog": 2, "liv": 1}
    assert query_words("What was that?") == {}


def test_bm25_by_hand() -> None:
    """Two texts of 3 and 1 words: mean length 2; "tea" stands in both, "green" in the first."""
    scores = score_bm25([1, 1], np.array([[1.0, 0.0], [2.0, 1.0]]), np.array([3.0, 1.0]))
    common, rare = log(1 + 0.5 / 2.5), log(1 + 1.5 / 1.5)
    long, short = 1.2 * (0.25 + 0.75 * 3 / 2), 1.2 * (0.25 + 0.75 * 1 / 2)
    assert scores.tolist() == pytest.approx([rare * 1 / (1 + long) + common * 2 / (2 + long), common * 1 / (1 + short)])


def test_a_word_that_stands_twice_in_the_query_counts_twice() -> None:
    counts, lengths = np.array([[1.0, 0.0]]), np.array([1.0, 1.0])
    assert score_bm25([2], counts, lengths)[0] == pytest.approx(2 * score_bm25([1], counts, lengths)[0])


def test_texts_that_share_no_word_score_nothing() -> None:
    assert score_bm25([1], np.zeros((1, 2)), np.array([1.0, 0.0])).tolist() == [0, 0]
    assert score_bm25([], np.zeros((0, 2)), np.array([1.0, 0.0])).tolist() == [0, 0]


def test_both_scores_count_in_standard_deviations() -> None:
    """Similarities .2 .8 .5: mean .5, deviation √.06, so −1.22 1.22 0, in halves −1 1 0. "tea" stands in the first
    alone: √2 there, −1/√2 elsewhere. Sums .41, .29, −.71."""
    assert sqrt(2) - 1 > 1 - 1 / sqrt(2)
    assert rank("tea", ["tea", "x", "y"], [0.2, 0.8, 0.5]) == ["1", "2", "3"]
    assert rank("coffee", ["tea", "x", "y"], [0.2, 0.8, 0.5]) == ["2", "3", "1"]


def test_ties_go_to_the_entry_that_was_added_first() -> None:
    assert rank("z", ["a", "b", "c"], [0.5, 0.5, 0.5]) == ["1", "2", "3"]
    assert rank("tea", ["tea", "tea", "x"], [0.5, 0.5, 0.5]) == ["1", "2", "3"]


def test_similarities_that_differ_little_are_a_tie() -> None:
    assert rank("z", ["a", "b"], [0.5, 0.5000001]) == ["1", "2"]
    # Mean .5, deviation .316: −1.27, −1.26 … are one step, whichever is a little nearer.
    assert rank("z", ["a", "b", "c", "d", "e"], [0.1, 0.104, 0.5, 0.896, 0.9]) == ["4", "5", "3", "1", "2"]


def test_the_limit_cuts_the_end() -> None:
    assert rank("z", ["a", "b", "c"], [0.1, 0.9, 0.5], limit=2) == ["2", "3"]
    assert rank("z", ["a"], [0.1], limit=0) == []
    assert rank("z", [], [], limit=3) == []


def test_utterances_of_one_sitting_are_neighbours_up_to_three_entries_away() -> None:
    texts = ["a: 1", "b: 2", "a: 3", "b: 4", "a: 5", "b: 6"]
    links = link_neighbours(sittings_of(entries_of(texts, "ab", hours=[0, 0, 0, 0, 0, 9])))
    assert [(distance, weights.tolist()) for distance, weights in links] == [
        (1, [0.5, 0.5, 0.5, 0.5, 0]),
        (2, [0.25, 0.25, 0.25, 0]),
        (3, [0.125, 0.125, 0]),
    ]
    assert read_together(np.array([1.0, 0, 0, 0, 0, 8]), links).tolist() == [1, 0.5, 0.25, 0.125, 0, 8]


def test_an_entry_in_a_managers_own_words_stands_for_itself() -> None:
    assert link_neighbours(sittings_of(entries_of(["a lives in Rome", "b: Nice!", "a has a dog"], "ab"))) == []


def test_a_question_finds_the_answer_to_the_utterance_that_has_its_words() -> None:
    """The reply says neither Marta nor dog; it stands behind the question that does."""
    texts = ["b: Hello there", "a: Fine weather today", "b: What is your dog called?", "a: He is Rex, of course"]
    bank = InMemoryBank("c", HashEmbedder(), entries=entries_of([*texts, "b: Bye", "a: Nothing else"], "ba"))
    assert bank.retrieve("What is the dog called?", speaker="a", limit=1)[0].id == "4"


def test_names_of_speakers_are_not_embedded() -> None:
    speakers = ("Marta", "Joe Black", "user")
    assert embedded_part("Where does Marta live?", speakers) == "Where does live?"
    assert embedded_part("Marta: Joe Black's dog and Joe’s user", speakers) == "dog and user"
    assert embedded_part("Martas marta", speakers) == "Martas marta"
    assert embedded_part("Marta?", speakers) == "Marta?"
    assert embedded_part("Where?", ()) == "Where?"


@settings(deadline=None)
@given(
    st.lists(st.text(alphabet="ab cé':", max_size=8), max_size=12),
    st.text(alphabet="ab c", max_size=6),
    st.integers(0, 15),
)
def test_a_ranking_is_a_prefix_of_the_full_one_and_repeats_itself(texts: list[str], query: str, limit: int) -> None:
    embedder, entries = HashEmbedder(16), entries_of(texts, "ab")
    query_vector = embedder.embed([query])[0]
    full = build_index(entries, embedder.embed(texts)).rank(query, query_vector, speaker=None, limit=99)
    assert sorted(entry.id for entry in full) == sorted(entry.id for entry in entries)
    again = build_index(entries, embedder.embed(texts)).rank(query, query_vector, speaker=None, limit=limit)
    assert again == full[:limit]


@settings(deadline=None)
@given(
    st.lists(st.text(alphabet="ab cé':", max_size=8), max_size=9),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.text(alphabet="ab c", max_size=6)), max_size=6),
    st.text(alphabet="ab c", max_size=6),
)
def test_an_index_that_follows_changes_ranks_as_one_made_anew(
    texts: list[str], changes: list[tuple[int, int, str]], query: str
) -> None:
    """Each change takes some entries out at a place and puts one in, or none."""
    embedder = HashEmbedder(16)
    entries, spare = entries_of(texts, "ab"), iter(entries_of([f"a: {text}" for _, _, text in changes], "ab"))
    index = build_index(entries, embedder.embed(texts))
    for place, num_removed, text in changes:
        entries = [*entries[:place], *([next(spare)] if text else []), *entries[place + num_removed :]]
        index = index.changed_to(entries, embedder.embed)
        fresh = build_index(entries, embedder.embed([entry.text for entry in entries]))
        for speaker in (None, "a"):
            asked = embedder.embed([query])[0]
            followed = index.rank(query, asked, speaker=speaker, limit=99)
            assert followed == fresh.rank(query, asked, speaker=speaker, limit=99)


def test_only_what_changed_is_embedded_again() -> None:
    embedder, entries = CountingEmbedder(), entries_of([f"fact {number}" for number in range(9)])
    index = build_index(entries, embedder.embed([entry.text for entry in entries]))
    embedder.texts.clear()
    replaced = entries[4].model_copy(update={"text": "another"})
    index = index.changed_to([*entries[:4], replaced, *entries[5:]], embedder.embed)
    index.changed_to([*entries[:4], replaced, *entries[6:]], embedder.embed)
    assert embedder.texts == ["another"]
