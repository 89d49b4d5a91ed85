"""The scorers, against hand-computed numbers and, where it is present, the published scorers' own output."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from memr1.metrics import bleu1, exact_match, locomo_f1, mem0_f1

SHARED = Path(os.environ.get("MEMR1_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
TEXTS = st.text(alphabet="abc AND,.;!", max_size=30)
TOKENS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9)


def test_mem0_f1_compares_sets_of_words() -> None:
    # {rome, and, rome...}: repeats count once. 2 shared of 3 predicted and 2 wanted: P = 2/3, R = 1, F1 = 0.8.
    assert mem0_f1("rome rome in Italy!", "Rome, Italy.") == pytest.approx(0.8)


def test_mem0_f1_splits_at_four_marks_only() -> None:
    assert mem0_f1("well-known", "well known") == 0.0
    assert mem0_f1("yes,no", "no yes") == 1.0


def test_exact_match_ignores_case_and_outer_space_only() -> None:
    assert exact_match("  ROME ", "rome") == 1.0
    assert exact_match("Rome.", "Rome") == 0.0


def test_numbers_are_scored_as_their_text() -> None:
    assert exact_match("2022", 2022) == 1.0
    assert mem0_f1(2, "2") == bleu1(2, "2") == locomo_f1(2, "2", 1) == 1.0


def test_bleu1_punishes_brevity() -> None:
    # Precision 1 on 2 of 4 wanted tokens: exp(1 - 4/2) = exp(-1).
    assert bleu1("a garden", "a garden in bloom") == pytest.approx(0.36787944)


def test_bleu1_clips_repeated_words() -> None:
    assert bleu1("rome rome rome rome", "rome is old news") == pytest.approx(0.25)


def test_locomo_f1_stems_and_drops_articles_and_and() -> None:
    assert locomo_f1("the painting and a dance", "paintings, dances", 4) == 1.0


def test_locomo_f1_counts_repeated_words() -> None:
    # Multisets: 1 shared of 2 predicted and 1 wanted: P = 1/2, R = 1, F1 = 2/3.
    assert locomo_f1("rome rome", "rome", 2) == pytest.approx(2 / 3)


def test_locomo_category_1_averages_the_best_match_of_every_gold_part() -> None:
    # "hiking" matches wholly, "chess" not at all.
    assert locomo_f1("hiking, swimming", "hiking, chess", 1) == pytest.approx(0.5)


def test_locomo_category_3_reads_the_gold_up_to_the_first_semicolon() -> None:
    assert locomo_f1("Yes", "Yes; because she said so", 3) == 1.0


def test_locomo_category_5_asks_for_a_refusal() -> None:
    assert locomo_f1("That is not mentioned anywhere.", "", 5) == 1.0
    assert locomo_f1("Rome", "", 5) == 0.0


def test_an_unknown_locomo_category_is_refused() -> None:
    with pytest.raises(ValueError, match="no category 6"):
        locomo_f1("a", "b", 6)


def test_empty_text_scores_zero_everywhere() -> None:
    for prediction, gold in (("", ""), ("", "rome"), ("rome", ""), (" ", ".")):
        scores = [mem0_f1(prediction, gold), bleu1(prediction, gold), exact_match(prediction, gold)]
        scores += [locomo_f1(prediction, gold, category) for category in (1, 2, 3, 4)]
        assert scores == [0.0] * 7


@given(TEXTS, TEXTS, st.integers(1, 5))
def test_every_score_lies_between_0_and_1(prediction: str, gold: str, category: int) -> None:
    scores = (mem0_f1(prediction, gold), bleu1(prediction, gold), exact_match(prediction, gold))
    assert all(0.0 <= score <= 1.0 for score in (*scores, locomo_f1(prediction, gold, category)))


@given(TEXTS, TEXTS)
def test_the_set_and_multiset_f1_are_symmetric(first: str, second: str) -> None:
    assert mem0_f1(first, second) == mem0_f1(second, first)
    assert locomo_f1(first, second, 4) == locomo_f1(second, first, 4)


@given(TOKENS, TOKENS)
def test_bleu1_is_what_nltk_computes(prediction: list[str], gold: list[str]) -> None:
    reference = sentence_bleu([gold], prediction, weights=(1, 0, 0, 0), smoothing_function=SmoothingFunction().method1)
    assert bleu1(" ".join(prediction), " ".join(gold)) == pytest.approx(reference, abs=1e-12)


def test_the_published_scorers_are_reproduced() -> None:
    path = SHARED / "scorer_vectors.json"
    if not path.exists():
        pytest.skip(f"no scorer vectors at {path}")
    for row in json.loads(path.read_text(encoding="utf-8")):
        prediction, gold = row["prediction"], row["gold"]
        assert mem0_f1(prediction, gold) == pytest.approx(row["mem0_f1"], abs=1e-6)
        assert bleu1(prediction, gold) == pytest.approx(row["mem0_bleu1"], abs=1e-6)
        assert exact_match(prediction, gold) == pytest.approx(row["mem0_em"], abs=1e-6)
        assert locomo_f1(prediction, gold, row["category"]) == pytest.approx(row["locomo_f1"], abs=1e-6)
