"""Figures from answers, counted by hand."""

import pytest

from memr1.evaluation.scores import group_by_system, pair_scores, score_system


def test_an_answer_is_scored_by_every_metric(make_answer) -> None:
    scored = make_answer(answer="in Rome", gold="Rome")
    assert scored.exact_match == 0.0
    assert scored.f1 == pytest.approx(2 / 3, abs=1e-6)  # precision 1/2, recall 1
    assert scored.bleu1 == pytest.approx(0.5)  # one of two words, and not shorter than the gold
    assert scored.locomo_f1 is None


def test_locomos_own_score_is_given_for_locomo_alone(make_answer) -> None:
    scored = make_answer(answer="the dogs", gold="a dog", category=4, is_locomo=True)
    assert scored.locomo_f1 == 1.0  # articles removed, words stemmed
    assert scored.f1 == 0.0


def test_categories_that_locomo_does_not_have_are_fine_elsewhere(make_answer) -> None:
    assert make_answer(category=42).locomo_f1 is None


def test_evidence_is_counted_among_retrieved_and_among_kept_turns(make_answer) -> None:
    scored = make_answer(evidence=("D1:1", "D1:2", "D2:4"), retrieved=("D1:1", "D9:9"), kept=("D1:1", "D1:2"))
    assert (scored.num_evidence, scored.evidence_found, scored.evidence_kept) == (3, 1, 2)


def test_a_system_is_averaged_over_all_and_by_category(make_answer, build_figures) -> None:
    answers = [
        make_answer("q1", category=1, answer="Rome"),
        make_answer("q2", category=1, answer="Oslo"),
        make_answer("q3", category=2, answer="", failure="gibberish"),
        make_answer("q4", category=2, answer="Rome"),
        make_answer("q5", category=2, answer="Rome"),
    ]
    score = score_system(answers, build_figures, 12.34)
    assert (score.num_questions, score.exact_match, score.f1) == (5, 0.6, 0.6)
    assert list(score.by_category) == ["1", "2"]
    assert score.by_category["1"].exact_match == 0.5
    assert score.by_category["2"].num_questions == 3
    assert score.by_category["2"].exact_match == pytest.approx(2 / 3, abs=1e-6)
    assert score.num_answer_failures == 1
    assert score.seconds == 12.3


def test_evidence_recall_is_the_mean_share_over_questions_that_name_evidence(make_answer, build_figures) -> None:
    answers = [
        make_answer("q1", evidence=("a", "b"), retrieved=("a",), kept=("a", "b")),  # 1/2 found, all kept
        make_answer("q2", evidence=("c",), retrieved=("c",), kept=("c",)),  # all
        make_answer("q3", evidence=("d", "e", "f", "g"), kept=("d",)),  # nothing found, 1/4 kept
        make_answer("q4"),  # names none: not counted
    ]
    score = score_system(answers, build_figures, 0)
    assert score.evidence_recall == 0.5
    assert score.evidence_kept == 0.75


def test_evidence_recall_is_unknown_when_no_question_names_evidence(make_answer, build_figures) -> None:
    score = score_system([make_answer()], build_figures, 0)
    assert score.evidence_recall is None
    assert score.evidence_kept is None


def test_two_systems_are_paired_by_question_not_by_place(make_answer) -> None:
    ours = [make_answer("q1", answer="Rome"), make_answer("q2", answer="Oslo", conversation_id="c2")]
    theirs = [make_answer("q2", answer="Rome"), make_answer("q1", answer="Oslo")]
    assert pair_scores(ours, theirs, "exact_match") == ([1.0, 0.0], [0.0, 1.0], ["c1", "c2"])


def test_systems_with_different_questions_are_not_paired(make_answer) -> None:
    assert pair_scores([make_answer("q1")], [make_answer("q2")], "f1") is None


def test_answers_are_grouped_by_system_in_order_of_appearance(make_answer) -> None:
    answers = [make_answer("q1", system="warm_start"), make_answer("q1"), make_answer("q2", system="warm_start")]
    sizes = [(name, len(items)) for name, items in group_by_system(answers).items()]
    assert sizes == [("warm_start", 2), ("trained", 1)]
