"""The checkpoint that did best on the validation examples is the one that is served, after a resume too."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from memr1.agents.transformers_generator import TransformersGenerator
from memr1.rl.checkpoints import ServedWeights, checkpoint_step, newest_whole_checkpoint, read_served, serve_weights
from memr1.rl.trainer import WholeCheckpoints
from memr1.rl.validation import Validation, score_policy
from memr1.run_dir import file_digest
from tests.builders import build_small_trainer, prompt_row, write_random_model

HELD_OUT = [prompt_row(f"v{number}", "xyz" * number) for number in range(1, 6)]
SCORES = {1: 0.2, 2: 0.9, 3: 0.9, 4: 0.1, 5: 0.3, 6: 0.3}  # by step; the best is not the last, and stands twice


class Stopped(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model"))


def scored_trainer(folder: Path, model: Path, scores: Mapping[int, float], **options: Any) -> Any:
    trainer = build_small_trainer(
        folder, model, max_steps=6, save_strategy="steps", save_steps=1, save_total_limit=3, **options
    )

    def reward(completions: Sequence[str], **_: Any) -> list[float]:
        if trainer.state.global_step not in scores:
            raise Stopped
        return [scores[trainer.state.global_step]] * len(completions)

    trainer.add_callback(WholeCheckpoints())
    trainer.add_callback(Validation(trainer, HELD_OUT, reward))
    return trainer


def steps_kept(folder: Path) -> list[int]:
    return sorted(checkpoint_step(path) for path in folder.glob("checkpoint-*"))


@pytest.mark.parametrize(("options", "weights"), [({}, "model"), ({"lora": 4}, "adapter_model")], ids=["full", "lora"])
def test_the_best_checkpoint_is_kept_and_served_after_a_resume_too(
    model: Path, tmp_path: Path, options: dict[str, int], weights: str
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    scored_trainer(whole, model, SCORES, **options).train()
    assert steps_kept(whole) == [3, 5, 6]
    assert serve_weights(whole, whole / "model") == ServedWeights(step=3, validation_reward=0.9) == read_served(whole)
    served = file_digest(whole / "model" / f"{weights}.safetensors")
    assert served == file_digest(whole / "checkpoint-3" / f"{weights}.safetensors")
    assert served != file_digest(whole / "checkpoint-6" / f"{weights}.safetensors")
    assert not any((whole / "model" / name).exists() for name in ("optimizer.pt", "trainer_state.json", "DONE.json"))

    with pytest.raises(Stopped):
        scored_trainer(stopped, model, {step: score for step, score in SCORES.items() if step < 5}, **options).train()
    newest = newest_whole_checkpoint(stopped)
    assert newest is not None and newest.name == "checkpoint-4"
    scored_trainer(stopped, model, SCORES, **options).train(resume_from_checkpoint=str(newest))
    assert steps_kept(stopped) == [3, 5, 6]
    assert serve_weights(stopped, stopped / "model").step == 3
    assert file_digest(stopped / "model" / f"{weights}.safetensors") == served


def test_without_validation_examples_the_last_step_is_served(model: Path, tmp_path: Path) -> None:
    trainer = build_small_trainer(tmp_path, model, max_steps=2, save_strategy="steps", save_steps=1)
    trainer.add_callback(WholeCheckpoints())
    trainer.add_callback(Validation(trainer, [], None))
    trainer.train()
    assert serve_weights(tmp_path, tmp_path / "model") == ServedWeights(step=2, validation_reward=None)


def test_a_score_is_the_mean_reward_of_greedy_completions(model: Path, tmp_path: Path) -> None:
    trainer = build_small_trainer(tmp_path, model)  # two prompts at once: five examples are three batches
    seen: dict[str, str] = {}

    def reward(completions: Sequence[str], example_id: Sequence[str], **_: Any) -> list[float | None]:
        seen.update(zip(example_id, completions, strict=True))
        return [{"v1": 1.0, "v2": None, "v3": 0.5, "v4": 0.0, "v5": 1.0}[key] for key in example_id]

    assert score_policy(trainer, HELD_OUT, reward) == pytest.approx(2.5 / 4)  # what has no reward is left out
    prompts = [row["prompt"][0]["content"] for row in HELD_OUT]
    expected = TransformersGenerator(model).sample_texts(prompts, max_new_tokens=8)
    assert seen == dict(zip(("v1", "v2", "v3", "v4", "v5"), expected, strict=True))
