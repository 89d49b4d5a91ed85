"""The promotion gate on hand-made scores."""

import pytest

from memr1.errors import RegistryError
from memr1.evaluation.scores import ScoredAnswer
from memr1.registry.gate import (
    GateQuestion,
    decide_promotion,
    match_questions,
    refuse_stale_comparison,
)


def questions(wins: int, losses: int, ties: int, num_conversations: int) -> list[GateQuestion]:
    """Questions won, lost and tied by the challenger, dealt to conversations in turn."""
    outcomes = [(1.0, 0.0)] * wins + [(0.0, 1.0)] * losses + [(1.0, 1.0)] * ties
    return [
        GateQuestion(
            question_id=f"q{number}",
            conversation_id=f"c{number % num_conversations}",
            challenger=challenger,
            incumbent=incumbent,
        )
        for number, (challenger, incumbent) in enumerate(outcomes)
    ]


def answer(question_id: str, exact_match: float) -> ScoredAnswer:
    return ScoredAnswer(
        system="any", question_id=question_id, conversation_id="c", category=1, question="?", gold="Rome",
        answer="Rome", memories=(), num_retrieved=0, num_evidence=0, evidence_found=0, evidence_kept=0, failure=None,
        f1=exact_match, bleu1=exact_match, exact_match=exact_match,
    )  # fmt: skip


def test_a_clearly_better_challenger_is_promoted_with_its_figures() -> None:
    decision = decide_promotion(questions(40, 5, 55, 10), "champion", seed=7)
    assert decision.promoted
    assert (decision.challenger_exact_match, decision.incumbent_exact_match) == (0.95, 0.6)
    assert decision.difference == pytest.approx(0.35)
    assert decision.confidence == 1.0 and decision.low > 0
    assert (decision.unit, decision.num_units, decision.num_questions) == ("conversation", 10, 100)
    assert "0.950" in decision.reasons[0] and "0.600" in decision.reasons[0]
    assert decision.reasons[-1] == "Promoted: the challenger is better than the champion."


def test_an_identical_challenger_is_not_promoted() -> None:
    decision = decide_promotion(questions(0, 0, 50, 10), "champion", seed=7)
    assert not decision.promoted
    assert (decision.difference, decision.confidence) == (0.0, 0.0)
    assert decision.reasons[-1] == "Not promoted: the challenger is not better than the champion."


def test_a_worse_challenger_is_not_promoted() -> None:
    assert not decide_promotion(questions(2, 9, 50, 10), "warm_start", seed=7).promoted


def test_a_better_but_uncertain_challenger_is_not_promoted() -> None:
    # 3 wins against 2 losses among 100 questions: a sign test gives P = 0.5 of at least 3 of 5 by chance.
    decision = decide_promotion(questions(3, 2, 95, 10), "champion", seed=7)
    assert decision.difference > 0 and decision.confidence < 0.95
    assert not decision.promoted
    assert "not by enough to be sure" in decision.reasons[-1]


def test_one_good_conversation_does_not_carry_a_promotion() -> None:
    # All 30 wins lie in one of ten conversations: resampled by question they would look certain.
    rows = [
        GateQuestion(
            question_id=str(n), conversation_id=f"c{n // 30}", challenger=float(n < 30 or n % 2), incumbent=n % 2
        )
        for n in range(300)
    ]
    decision = decide_promotion(rows, "champion", seed=7)
    assert decision.difference == pytest.approx(0.05)
    assert not decision.promoted  # a resample misses that conversation in (9/10)^10 = 35 % of cases
    assert decision.confidence == pytest.approx(0.65, abs=0.02)


def test_few_conversations_are_judged_by_question_and_the_decision_says_so() -> None:
    decision = decide_promotion(questions(30, 1, 20, 2), "warm_start", seed=7)
    assert decision.promoted and decision.unit == "question"
    assert any("fewer than 5 conversations" in reason for reason in decision.reasons)
    assert "no champion yet" in decision.reasons[0]


def test_the_same_questions_and_seed_give_the_same_decision() -> None:
    rows = questions(12, 8, 30, 7)
    assert decide_promotion(rows, "champion", seed=3) == decide_promotion(rows, "champion", seed=3)


def test_a_champion_that_changed_since_the_evaluation_turns_a_promotion_down() -> None:
    decision = refuse_stale_comparison(
        decide_promotion(questions(40, 5, 55, 10), "champion", seed=7), "version 3", "version 4"
    )
    assert not decision.promoted
    assert "version 3" in decision.reasons[-1] and "version 4" in decision.reasons[-1]
    assert not any(reason.startswith("Promoted") for reason in decision.reasons)


def test_answers_are_matched_by_question() -> None:
    matched = match_questions([answer("b", 1.0), answer("a", 0.0)], [answer("a", 1.0), answer("b", 0.0)])
    assert [(item.question_id, item.challenger, item.incumbent) for item in matched] == [
        ("b", 1.0, 0.0),
        ("a", 0.0, 1.0),
    ]


def test_different_questions_cannot_be_compared() -> None:
    with pytest.raises(RegistryError, match="only one, like 'b'"):
        match_questions([answer("a", 1.0), answer("b", 1.0)], [answer("a", 1.0)])
