"""From answers to the figures of a report. Pure.

Every score is a mean over questions, between 0 and 1. Left out: LLM judges.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from memr1.data.conversation import Question
from memr1.metrics import bleu1, exact_match, locomo_f1, mem0_f1
from memr1.records import Record

NUM_DIGITS = 6


class ScoredAnswer(Record):
    """One question as one system answered it: a line of answers.jsonl.

    `evidence_found` counts the question's evidence turns behind the memories retrieved for it, `evidence_kept` those
    behind any entry of the bank; both out of `num_evidence`. An output that does not parse is scored as no answer.
    """

    system: str
    question_id: str
    conversation_id: str
    category: int
    question: str
    gold: str
    answer: str
    memories: tuple[str, ...]  # texts of the entries that the Answer Agent chose
    num_retrieved: int
    num_evidence: int
    evidence_found: int
    evidence_kept: int
    failure: str | None  # the output that could not be read
    f1: float
    bleu1: float
    exact_match: float
    locomo_f1: float | None = None  # LoCoMo's own score, for its questions only


class Scores(Record):
    """Means over a set of questions."""

    num_questions: int
    f1: float
    bleu1: float
    exact_match: float
    locomo_f1: float | None = None


class BuildFigures(Record):
    """What a system's Memory Manager did while it read the conversations."""

    num_turns: int
    num_manager_calls: int
    num_manager_failures: int  # outputs that did not parse: their turns left no trace in the bank
    operations: dict[str, int]
    num_entries: int


class SystemScore(Scores):
    """One system's column of the report. `by_category` is keyed by the category integer, as text."""

    by_category: dict[str, Scores]
    evidence_recall: float | None  # mean share of a question's evidence among its retrieved memories
    evidence_kept: float | None  # mean share of a question's evidence that the bank holds at all
    num_answer_failures: int
    build: BuildFigures
    seconds: float


def score_answer(
    system: str,
    question: Question,
    answer: str,
    *,
    memories: Sequence[str],
    num_retrieved: int,
    retrieved_turns: Collection[str],
    kept_turns: Collection[str],
    failure: str | None = None,
    is_locomo: bool = False,
) -> ScoredAnswer:
    """Score one answer against the question's gold and its evidence turns."""
    evidence = set(question.evidence)
    return ScoredAnswer(
        system=system,
        question_id=question.id,
        conversation_id=question.conversation_id,
        category=question.category,
        question=question.text,
        gold=question.answer,
        answer=answer,
        memories=tuple(memories),
        num_retrieved=num_retrieved,
        num_evidence=len(evidence),
        evidence_found=len(evidence.intersection(retrieved_turns)),
        evidence_kept=len(evidence.intersection(kept_turns)),
        failure=failure,
        f1=round(mem0_f1(answer, question.answer), NUM_DIGITS),
        bleu1=round(bleu1(answer, question.answer), NUM_DIGITS),
        exact_match=exact_match(answer, question.answer),
        locomo_f1=round(locomo_f1(answer, question.answer, question.category), NUM_DIGITS) if is_locomo else None,
    )


def score_system(answers: Sequence[ScoredAnswer], build: BuildFigures, seconds: float) -> SystemScore:
    """Average one system's answers, over all and by category."""
    categories = sorted({answer.category for answer in answers})
    return SystemScore(
        **_average(answers).model_dump(),
        by_category={str(number): _average([a for a in answers if a.category == number]) for number in categories},
        evidence_recall=_evidence_share(answers, lambda answer: answer.evidence_found),
        evidence_kept=_evidence_share(answers, lambda answer: answer.evidence_kept),
        num_answer_failures=sum(answer.failure is not None for answer in answers),
        build=build,
        seconds=round(seconds, 1),
    )


def pair_scores(
    a: Iterable[ScoredAnswer], b: Iterable[ScoredAnswer], metric: str
) -> tuple[list[float], list[float], list[str]] | None:
    """Two systems' scores on the same questions, and each question's conversation; None if the questions differ."""
    of_a, of_b = {item.question_id: item for item in a}, {item.question_id: item for item in b}
    if of_a.keys() != of_b.keys():
        return None
    clusters = [item.conversation_id for item in of_a.values()]
    return [getattr(of_a[key], metric) for key in of_a], [getattr(of_b[key], metric) for key in of_a], clusters


def group_by_system(answers: Iterable[ScoredAnswer]) -> Mapping[str, list[ScoredAnswer]]:
    """The answers of each system, systems in the order of their first answer."""
    groups: dict[str, list[ScoredAnswer]] = {}
    for answer in answers:
        groups.setdefault(answer.system, []).append(answer)
    return groups


def _average(answers: Sequence[ScoredAnswer]) -> Scores:
    def mean(values: Sequence[float]) -> float:
        return round(sum(values) / len(values), NUM_DIGITS) if values else 0.0

    of_locomo = [answer.locomo_f1 for answer in answers if answer.locomo_f1 is not None]
    return Scores(
        num_questions=len(answers),
        f1=mean([answer.f1 for answer in answers]),
        bleu1=mean([answer.bleu1 for answer in answers]),
        exact_match=mean([answer.exact_match for answer in answers]),
        locomo_f1=mean(of_locomo) if of_locomo else None,
    )


def _evidence_share(answers: Sequence[ScoredAnswer], count: Callable[[ScoredAnswer], int]) -> float | None:
    """Mean over the questions that name evidence; None when none does."""
    shares = [count(answer) / answer.num_evidence for answer in answers if answer.num_evidence]
    return round(sum(shares) / len(shares), NUM_DIGITS) if shares else None
