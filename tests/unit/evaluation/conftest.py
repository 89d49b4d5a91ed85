"""Answers and reports made by hand."""

from collections.abc import Callable

import pytest

from memr1.data.conversation import Question
from memr1.evaluation.scores import BuildFigures, ScoredAnswer, score_answer

MakeAnswer = Callable[..., ScoredAnswer]


@pytest.fixture
def make_answer() -> MakeAnswer:
    """Scores one answer; only what a test is about needs to be named."""

    def make(
        question_id: str = "q1",
        *,
        system: str = "trained",
        conversation_id: str = "c1",
        category: int = 1,
        gold: str = "Rome",
        answer: str = "Rome",
        evidence: tuple[str, ...] = (),
        retrieved: tuple[str, ...] = (),
        kept: tuple[str, ...] = (),
        failure: str | None = None,
        is_locomo: bool = False,
    ) -> ScoredAnswer:
        question = Question(
            id=question_id,
            conversation_id=conversation_id,
            text="Where does Marta live?",
            answer=gold,
            category=category,
            evidence=evidence,
        )
        return score_answer(
            system,
            question,
            answer,
            memories=["Marta lives in Rome"],
            num_retrieved=3,
            retrieved_turns=set(retrieved),
            kept_turns=set(kept),
            failure=failure,
            is_locomo=is_locomo,
        )

    return make


@pytest.fixture
def build_figures() -> BuildFigures:
    return BuildFigures(
        num_turns=1200,
        num_manager_calls=880,
        num_manager_failures=2,
        operations={"ADD": 500, "UPDATE": 90, "DELETE": 30, "NOOP": 260},
        num_entries=470,
    )
