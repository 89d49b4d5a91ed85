"""The build's stages: each runs once, and only what is missing runs again."""

import shutil
from pathlib import Path

import pytest

from memr1.config import AGENTS
from memr1.errors import TrainingError
from memr1.tiny.architecture import Shape
from memr1.tiny.build import BuildOptions, Gate, build_tiny_pair
from memr1.tiny.warm_start import WarmStartOptions
from memr1.tiny.weights import agent_folder

FEW_STEPS = WarmStartOptions(num_steps=2, num_facts={"easy": (1, 2), "full": (1, 2)}, batch_size=2, num_branches=1)
MINUSCULE = BuildOptions(
    shape=Shape(hidden_size=32, num_layers=2, mlp_size=32),
    warm_start=dict.fromkeys(AGENTS, (FEW_STEPS, FEW_STEPS.model_copy(update={"batches_drawn_at_once": 2}))),
    gate=None,
    num_exam_conversations=1,
    num_exam_banks=12,
    hash_embedder=True,
)


def test_a_build_that_is_run_again_makes_only_what_is_missing(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    first = build_tiny_pair(work, out, MINUSCULE)
    assert set(first.processor_seconds) == {
        "tokenizer",
        *(f"{agent}_{number}" for agent in AGENTS for number in (1, 2)),
    }
    weights = (agent_folder("memory_manager", out) / "model.safetensors").read_bytes()
    untouched = _times_of(work / "answer_agent_2")
    shutil.rmtree(work / "memory_manager_2")
    second = build_tiny_pair(work, out, MINUSCULE)
    assert _times_of(work / "answer_agent_2") == untouched
    assert second.processor_seconds["answer_agent_2"] == first.processor_seconds["answer_agent_2"]
    assert (agent_folder("memory_manager", out) / "model.safetensors").read_bytes() == weights
    assert second.levels == first.levels


def test_a_pair_that_fails_the_gate_is_not_written_out(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no start for reinforcement"):
        build_tiny_pair(tmp_path / "work", tmp_path / "out", MINUSCULE.model_copy(update={"gate": Gate()}))
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "work" / "exam.json").is_file()


def _times_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
