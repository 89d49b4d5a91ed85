"""Training computes the same, whichever way it is run: the same losses, gradients and weights after three steps."""

from pathlib import Path

import pytest
import torch

from memr1.agents.generators import build_generator
from memr1.agents.pair import load_pair, pair_settings, write_pair
from memr1.agents.transformers_generator import load_model
from memr1.config import AGENTS, AgentConfig, AnswerAgentConfig, RunConfig, TransformersModel
from tests.builders import write_random_model
from tests.end_to_end.ways import GROUP, NUM_STEPS, PROMPTS_PER_STEP, Outcome, Way, run_way, token_log_probs

pytestmark = pytest.mark.slow

ALGORITHMS = ("grpo", "ppo")
QUARTER = PROMPTS_PER_STEP * GROUP // 4
WAYS = [
    way
    for algorithm in ALGORITHMS
    for way in (
        Way(algorithm, shares_prompts=False),
        Way(algorithm, micro_batch=QUARTER),
        Way(algorithm, num_processes=2),
        Way(algorithm, "zero1"),
        Way(algorithm, "zero1", 2),
        Way(algorithm, "zero2"),
        Way(algorithm, "zero2", 2),
        Way(algorithm, "zero2", 2, micro_batch=QUARTER),
        Way(algorithm, "zero2", 2, shares_prompts=False),
        Way(algorithm, "zero2", 2, lora=True),
        Way(algorithm, "zero3"),
        Way(algorithm, "zero3", 2),
        Way(algorithm, "zero3", 2, micro_batch=QUARTER),
        Way(algorithm, "zero3_offload", 2),
    )
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model"), ends="aeiou")


@pytest.fixture(scope="module")
def known() -> dict[Way, Outcome]:
    """What torch alone comes to in one process, as far as it has been asked for."""
    return {}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_to_train_computes_the_same(way: Way, model: Path, known: dict[Way, Outcome], tmp_path: Path) -> None:
    plain = Way(way.algorithm, lora=way.lora)
    if plain not in known:
        known[plain] = run_way(plain, model, tmp_path / "plain")
    wanted, found = known[plain], run_way(way, model, tmp_path / "run")
    assert len(found.losses) == NUM_STEPS
    assert found.losses == pytest.approx(wanted.losses, abs=1e-5)
    assert found.gradient_norms == pytest.approx(wanted.gradient_norms, rel=1e-5)
    assert min(wanted.gradient_norms) > 0.1  # there is something to compare: a first loss of GRPO is 0 whatever it did
    assert found.weights.keys() == wanted.weights.keys()
    for name, weights in wanted.weights.items():
        far = (found.weights[name] - weights).abs() > 1e-5
        assert far.float().mean() < 1e-3, name  # Adam makes a whole step even of a gradient that is rounding alone


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_trained_adapter_serves_the_policy_that_was_trained(algorithm: str, model: Path, tmp_path: Path) -> None:
    outcome = run_way(Way(algorithm, "zero2", lora=True), model, tmp_path / "run")
    assert all("lora" in name for name in outcome.weights)  # neither the base nor a critic
    trained, adapter = torch.load(tmp_path / "run" / "log_probs.pt"), tmp_path / "run" / "model"
    assert (trained - token_log_probs(load_model(model))).abs().max() > 1e-3
    assert torch.allclose(token_log_probs(load_model(model, adapter)), trained, atol=1e-5)
    generator = TransformersModel(model=str(model))
    config = RunConfig(
        memory_manager=AgentConfig(generator=generator), answer_agent=AnswerAgentConfig(generator=generator)
    )
    settings = pair_settings(config)
    write_pair(tmp_path / "pair", settings, dict.fromkeys(AGENTS, adapter))  # what the registry's bundle is
    assert torch.allclose(token_log_probs(load_model(tmp_path / "pair" / "answer_agent")), trained, atol=1e-5)
    served = load_pair(tmp_path / "pair").answer_agent._generator
    built = build_generator(generator, "answer_agent", adapter)
    prompts = ["Ann", "Where does she live?"]
    assert served.sample_texts(prompts, max_new_tokens=12) == built.sample_texts(prompts, max_new_tokens=12)
