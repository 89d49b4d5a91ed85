"""What an evaluation found, as values: `report.json` is an `EvaluationReport`. Pure."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

from memr1.errors import EvaluationError
from memr1.evaluation.scores import ScoredAnswer, SystemScore, pair_scores
from memr1.evaluation.significance import Difference, paired_bootstrap
from memr1.records import Record

ComparedMetric = Literal["exact_match", "f1"]
COMPARED_METRICS: tuple[ComparedMetric, ...] = ("exact_match", "f1")


class ScoredDataset(Record):
    """The questions behind a report."""

    name: str
    sha256: str
    split: str  # "test", or "all" for a file that was never trained on
    num_conversations: int
    num_questions: int
    category_names: dict[str, str]  # category integer as text → the dataset's word for it, where it has one
    licence_notice: str


class ServedVersion(Record):
    """Which registered version a pair folder is: its served_version.json."""

    model_name: str
    version: str


class PairwiseDifference(Difference):
    """System `a` minus system `b` on one metric."""

    a: str
    b: str
    metric: ComparedMetric


class EvaluationReport(Record):
    """`report.json`."""

    dataset: ScoredDataset
    systems: dict[str, SystemScore]
    differences: tuple[PairwiseDifference, ...]
    champion: ServedVersion | None = None  # what the system `champion` is
    notes: tuple[str, ...] = ()  # what a reader must know to read the figures right


def compare_systems(answers: Mapping[str, Sequence[ScoredAnswer]], seed: int) -> list[PairwiseDifference]:
    """Every system against every other, `trained` first, on each compared metric.

    Raises EvaluationError when two systems did not answer the same questions.
    """
    names = sorted(answers, key=lambda name: name != "trained")
    return [_compare(a, b, answers, metric, seed) for metric in COMPARED_METRICS for a, b in combinations(names, 2)]


def _compare(
    a: str, b: str, answers: Mapping[str, Sequence[ScoredAnswer]], metric: ComparedMetric, seed: int
) -> PairwiseDifference:
    scores = pair_scores(answers[a], answers[b], metric)
    if scores is None:
        raise EvaluationError(f"systems {a} and {b} did not answer the same questions: evaluate them again")
    return PairwiseDifference(**paired_bootstrap(*scores, seed=seed).model_dump(), a=a, b=b, metric=metric)
