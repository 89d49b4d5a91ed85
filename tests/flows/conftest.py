"""A whole run that is small enough for a test: the same path, few conversations, few steps."""

from pathlib import Path

import pytest

SMALL_PROFILE = """
[data]
kind = "synthetic"
num_train = 6
num_validation = 1
num_test = 6

[retrieval]
entries_per_turn = 6
entries_per_speaker = 8

[training]
prompts_per_step = 4
completions_per_prompt = 2
micro_batch = 8
num_processes = 1
checkpoint_every = 1

[training.memory_manager]
num_steps = 2

[training.answer_agent]
num_steps = 2
"""


@pytest.fixture(scope="module")
def small_profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "small.toml"
    path.write_text(SMALL_PROFILE, encoding="utf-8")
    return path
