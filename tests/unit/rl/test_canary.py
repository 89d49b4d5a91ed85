"""A sampler that works with other weights than the trainer is caught once the weights have moved, and named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from memr1.errors import TrainingError
from memr1.rl.canary import GAP_FLOAT32, SamplerCanary
from memr1.rl.grpo import SharedPromptGrpo
from tests.builders import build_small_trainer, prompt_row, write_random_model

PROBE = [prompt_row("e1", "a short one"), prompt_row("e2", "and another one, which is longer")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model"))


class WithoutAdapter(SharedPromptGrpo):
    """Samples from the base model: the adapter that is trained is not applied."""

    def sample_completions(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        with model.disable_adapter():
            return super().sample_completions(model, *args, **kwargs)


class StaleCopy(SharedPromptGrpo):
    """Samples from the weights as they were at the start."""

    def sample_completions(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self, "_stale"):
            self._stale = AutoModelForCausalLM.from_pretrained(model.config.name_or_path)
        return super().sample_completions(self._stale, *args, **kwargs)


@pytest.mark.parametrize(("kind", "options"), [(WithoutAdapter, {"lora": 4}), (StaleCopy, {})])
def test_a_sampler_with_other_weights_stops_the_run_once_they_have_moved(
    model: Path, tmp_path: Path, kind: type[SharedPromptGrpo], options: dict[str, int]
) -> None:
    trainer = build_small_trainer(tmp_path, model, kind, max_steps=4, **options)
    trainer.add_callback(SamplerCanary(trainer, PROBE, None, every=10))
    with pytest.raises(TrainingError, match="stopped at step 1: the weights that are sampled are not the ones being"):
        trainer.train()  # before step 1, where an adapter is still without effect, nothing is wrong


def test_a_sampler_with_the_trainers_weights_passes_and_changes_nothing(model: Path, tmp_path: Path) -> None:
    watched, alone = (build_small_trainer(tmp_path, model, max_steps=3, lora=4) for _ in range(2))
    watched.add_callback(SamplerCanary(watched, PROBE, None, every=2))
    for trainer in (watched, alone):
        torch.manual_seed(0)
        trainer.train()
    gaps = [line.get("sampler_gap") for line in watched.state.log_history if "loss" in line]
    assert all(gap < GAP_FLOAT32 / 10 for gap in gaps) and len(gaps) == 3
    losses, others = ([line["loss"] for line in item.state.log_history if "loss" in line] for item in (watched, alone))
    assert losses == others
