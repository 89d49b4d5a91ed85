"""Training computes the same, whichever way it is run: the same losses, gradients and weights after three steps."""

from pathlib import Path

import pytest
import torch

from tests.builders import write_random_model
from tests.end_to_end.ways import NUM_STEPS, PROMPTS_PER_STEP, GROUP, Outcome, Way, run_way

pytestmark = pytest.mark.slow

WHOLE = PROMPTS_PER_STEP * GROUP
WAYS = [
    way
    for algorithm in ("grpo", "ppo")
    for way in (
        Way(algorithm, shares_prompts=False),
        Way(algorithm, micro_batch=WHOLE // 4),
        Way(algorithm, num_processes=2),
        Way(algorithm, "zero1"),
        Way(algorithm, "zero1", 2),
        Way(algorithm, "zero2"),
        Way(algorithm, "zero2", 2),
        Way(algorithm, "zero2", 2, micro_batch=WHOLE // 4),
        Way(algorithm, "zero2", 2, shares_prompts=False),
        Way(algorithm, "zero3"),
        Way(algorithm, "zero3", 2),
        Way(algorithm, "zero3", 2, micro_batch=WHOLE // 4),
        Way(algorithm, "zero3_offload", 2),
    )
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model"), ends="aeiou")


@pytest.fixture(scope="module")
def plain(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("plain")
    return {algorithm: run_way(Way(algorithm), model, folder / algorithm) for algorithm in ("grpo", "ppo")}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_to_train_computes_the_same(way: Way, model: Path, plain: dict[str, Outcome], tmp_path: Path) -> None:
    wanted, found = plain[way.algorithm], run_way(way, model, tmp_path / "run")
    norms = [abs(a - b) / a for a, b in zip(wanted.gradient_norms, found.gradient_norms)]
    far = {n: float((found.weights[n] - wanted.weights[n]).abs().max()) for n in wanted.weights}
    print("WAY", way, wanted.losses, found.losses, norms, max(far.values()))
