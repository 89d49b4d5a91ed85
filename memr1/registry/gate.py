"""The promotion gate: does the challenger answer the same questions better than what serves today? Pure.

The challenger becomes champion when its exact match is higher and a one-sided paired bootstrap, clustered by
conversation (`memr1.evaluation.significance`), is at least REQUIRED_CONFIDENCE sure of it. Without a champion the
warm start takes its place: a pair that training has not improved is not worth serving.
"Not promoted" is a result, with its reasons in words.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from memr1.errors import RegistryError
from memr1.evaluation.scores import ScoredAnswer
from memr1.evaluation.significance import MIN_CLUSTERS, NUM_SAMPLES, paired_bootstrap
from memr1.records import Record

Incumbent = Literal["champion", "warm_start"]
REQUIRED_CONFIDENCE = 0.95


class GateQuestion(Record):
    """One question as both systems answered it: exact match, 0 or 1."""

    question_id: str
    conversation_id: str
    challenger: float
    incumbent: float


class GateDecision(Record):
    """Whether the challenger replaces the incumbent, and why."""

    promoted: bool
    incumbent: Incumbent
    challenger_exact_match: float
    incumbent_exact_match: float
    difference: float
    low: float  # 95 % interval of the difference
    high: float
    confidence: float  # share of resamples in which the challenger is better
    required_confidence: float
    unit: Literal["conversation", "question"]  # what was resampled
    num_units: int
    num_questions: int
    seed: int
    num_samples: int
    reasons: tuple[str, ...]


def match_questions(challenger: Iterable[ScoredAnswer], incumbent: Iterable[ScoredAnswer]) -> list[GateQuestion]:
    """Both systems' exact matches, question by question. Raises RegistryError when the questions differ."""
    ours, theirs = ({answer.question_id: answer for answer in answers} for answers in (challenger, incumbent))
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise RegistryError(
            f"the gate needs both systems' answers to the same questions; {len(odd)} have only one, like {odd[0]!r}: "
            "run the evaluate stage again"
        )
    return [
        GateQuestion(
            question_id=key,
            conversation_id=answer.conversation_id,
            challenger=answer.exact_match,
            incumbent=theirs[key].exact_match,
        )
        for key, answer in ours.items()
    ]


def decide_promotion(
    questions: Sequence[GateQuestion],
    incumbent: Incumbent,
    *,
    seed: int,
    required_confidence: float = REQUIRED_CONFIDENCE,
    num_samples: int = NUM_SAMPLES,
) -> GateDecision:
    """Judge the challenger on these questions. The same questions and seed give the same decision, digit by digit."""
    ours, theirs = [item.challenger for item in questions], [item.incumbent for item in questions]
    clusters = [item.conversation_id for item in questions]
    found = paired_bootstrap(ours, theirs, clusters, seed=seed, samples=num_samples)
    promoted = found.difference > 0 and found.probability >= required_confidence
    decision = GateDecision(
        promoted=promoted,
        incumbent=incumbent,
        challenger_exact_match=sum(ours) / len(ours),
        incumbent_exact_match=sum(theirs) / len(theirs),
        difference=found.difference,
        low=found.low,
        high=found.high,
        confidence=found.probability,
        required_confidence=required_confidence,
        unit=found.unit,
        num_units=found.num_units,
        num_questions=len(questions),
        seed=seed,
        num_samples=num_samples,
        reasons=(),
    )
    return decision.model_copy(update={"reasons": tuple(_reasons(decision))})


def refuse_stale_comparison(decision: GateDecision, evaluated: str, serving: str) -> GateDecision:
    """The same decision, turned down because the champion changed after the evaluation."""
    reason = (
        f"Not promoted: the evaluation compared with {evaluated}, but {serving} serves now. "
        "Run the evaluate stage again to compare with it."
    )
    return decision.model_copy(update={"promoted": False, "reasons": (*decision.reasons[:-1], reason)})


def _reasons(decision: GateDecision) -> list[str]:
    """Figures, certainty, what limits it, verdict."""
    who = "the champion" if decision.incumbent == "champion" else "the warm start (there is no champion yet)"
    reasons = [
        f"On {decision.num_questions:,} questions the challenger's exact match is "
        f"{decision.challenger_exact_match:.3f}, that of {who} {decision.incumbent_exact_match:.3f}: a difference of "
        f"{decision.difference:+.3f} (95 % interval {decision.low:+.3f} to {decision.high:+.3f}).",
        f"The challenger is better in {decision.confidence:.1%} of {decision.num_samples:,} resamples over "
        f"{decision.num_units:,} {decision.unit}s; {decision.required_confidence:.0%} is required.",
    ]
    if decision.unit == "question":
        reasons.append(
            f"There are fewer than {MIN_CLUSTERS} conversations, so single questions were resampled. "
            "Questions about one conversation are alike: the true certainty is lower than this figure."
        )
    return [*reasons, _verdict(decision, who)]


def _verdict(decision: GateDecision, who: str) -> str:
    if decision.promoted:
        return f"Promoted: the challenger is better than {who}."
    if decision.difference <= 0:
        return f"Not promoted: the challenger is not better than {who}."
    return f"Not promoted: the challenger is better than {who}, but not by enough to be sure."
