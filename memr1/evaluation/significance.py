"""How sure a difference between two systems is: a paired bootstrap over the questions that both answered.

Questions about one conversation are answered from one bank, so they succeed and fail together. Resampling single
questions would count them as independent and overstate the certainty; whole conversations are resampled instead
(a cluster bootstrap: Davison & Hinkley 1997, section 3.8). With very few conversations that says nothing, so below
MIN_CLUSTERS single questions are resampled, and `unit` says so.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memr1.errors import EvaluationError
from memr1.records import Record

MIN_CLUSTERS = 5
NUM_SAMPLES = 10_000
INTERVAL = (2.5, 97.5)  # percentiles: a two-sided 95 % interval
MAX_DRAWS = 1_000_000  # numbers drawn at once: bounds the memory, whatever the number of questions


class Difference(Record):
    """Mean score of one system minus that of another over the same questions, and what resampling says of it."""

    difference: float
    low: float  # 2.5th percentile of the resampled differences
    high: float  # 97.5th percentile
    probability: float  # share of resamples in which the difference is above 0
    unit: Literal["conversation", "question"]  # what was resampled
    num_units: int
    num_samples: int


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], clusters: Sequence[str], *, seed: int, samples: int = NUM_SAMPLES
) -> Difference:
    """Difference of the means of `a` and `b`, resampled by cluster. Item i of all three is one question.

    Raises EvaluationError when there is nothing to compare or the lengths differ.
    """
    if not a or not len(a) == len(b) == len(clusters):
        raise EvaluationError(f"cannot compare {len(a)} scores with {len(b)} in {len(clusters)} conversations")
    gains = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    sums, sizes = _sum_by_cluster(gains, clusters)
    by_conversation = len(sums) >= MIN_CLUSTERS
    if not by_conversation:
        sums, sizes = gains, np.ones(len(gains))
    resampled = _resample_means(sums, sizes, seed, samples)
    low, high = np.percentile(resampled, INTERVAL)
    return Difference(
        difference=float(gains.mean()),
        low=float(low),
        high=float(high),
        probability=float((resampled > 0).mean()),
        unit="conversation" if by_conversation else "question",
        num_units=len(sums),
        num_samples=samples,
    )


def _sum_by_cluster(
    gains: NDArray[np.float64], clusters: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per cluster: the sum of its gains and the number of its questions."""
    positions = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    index = [positions[name] for name in clusters]
    return np.bincount(index, weights=gains).astype(np.float64), np.bincount(index).astype(np.float64)


def _resample_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], seed: int, samples: int
) -> NDArray[np.float64]:
    """Means over `samples` draws of as many units as there are, with replacement."""
    rng = np.random.default_rng(seed)
    num_units = len(sums)
    num_rows = max(1, MAX_DRAWS // num_units)
    means: list[NDArray[np.float64]] = []
    for start in range(0, samples, num_rows):
        drawn = rng.integers(0, num_units, size=(min(num_rows, samples - start), num_units))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means)
