"""The rehearsal runs what training runs, leaves it as it was, and tells of a shortage before the first step."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from memr1.rl.ppo import PpoTrainer
from memr1.rl.preflight import MemoryPreflight, build_rows, is_shortage, longest_prompt
from memr1.training_options import PpoTraining
from tests.builders import build_small_trainer, prompt_row, write_random_model

SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from transformers import TrainerCallback
from memr1.errors import TrainingError
from memr1.rl.preflight import MemoryPreflight
from tests.builders import build_small_trainer, prompt_row

class Limit(TrainerCallback):
    def on_train_begin(self, *args, **kwargs):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 300 * 2**20,) * 2)

rows = [prompt_row("short", "ab"), prompt_row("long", "ab" * 1000)]
trainer = build_small_trainer(Path(sys.argv[1]) / "run", Path(sys.argv[1]) / "model", rows=rows * 64,
                              per_device_train_batch_size=512, max_completion_length=64)
trainer.add_callback(Limit())
trainer.add_callback(MemoryPreflight(trainer, rows))
try:
    trainer.train()
except TrainingError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("preflight") / "model")


@pytest.mark.parametrize(
    "options", [{}, {"lora": 4}, {"kind": PpoTrainer, "ppo": PpoTraining(algorithm="ppo")}], ids=["grpo", "lora", "ppo"]
)
def test_training_after_a_rehearsal_is_training_without_one(
    model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    rehearsed, plain = (build_small_trainer(tmp_path, model, **options) for _ in range(2))
    rehearsed.add_callback(MemoryPreflight(rehearsed, [prompt_row("long", "ab" * 100)]))
    before = {name: weights.clone() for name, weights in plain.model.state_dict().items()}
    for trainer in (rehearsed, plain):
        torch.manual_seed(0)
        trainer.train()
    trained, expected = rehearsed.model.state_dict(), plain.model.state_dict()
    assert any(not torch.equal(expected[name], weights) for name, weights in before.items())
    assert all(torch.equal(trained[name], weights) for name, weights in expected.items())


def test_the_rehearsal_computes_a_whole_micro_batch_of_the_longest_example(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = build_small_trainer(tmp_path, model, gradient_accumulation_steps=2)
    seen: list[tuple[tuple[int, ...], bool]] = []
    trainer.model.model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append((tuple(inputs["input_ids"].shape), torch.is_grad_enabled())),
        with_kwargs=True,
    )
    rehearsal = MemoryPreflight(trainer, [prompt_row("short", "ab"), prompt_row("long", "x" * 99)])
    with caplog.at_level("INFO"):
        rehearsal.on_train_begin(trainer.args, trainer.state, trainer.control)
    # 16 completions in one generation of 4 prompts, read once; a micro-batch is 8 rows of 2 prompts, whose last token
    # runs with the completion. The template adds a line feed to the 99 characters.
    assert seen == [((4, 100), False), ((2, 99), True), ((8, 9), True)]
    assert all(weights.grad is None for weights in trainer.model.parameters())
    assert "memory preflight: example long, a prompt of 100 tokens" in caplog.text


@pytest.mark.slow
def test_a_shortage_of_memory_names_the_example_and_what_to_lower(model: Path) -> None:
    command = [sys.executable, "-c", SHORT_OF_MEMORY, str(model.parent)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "example long: 512 completions of 64 tokens, each after a prompt of 2001 tokens" in told.stdout, told.stderr
    assert "can't allocate memory" in told.stdout and "lower training.micro_batch" in told.stdout


def test_only_a_shortage_of_memory_is_taken_for_one() -> None:
    assert is_shortage(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_shortage(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert is_shortage(MemoryError())
    assert not is_shortage(RuntimeError("shape mismatch"))


def test_no_two_rows_of_the_rehearsal_are_alike(model: Path, tmp_path: Path) -> None:
    tokens, mask = build_rows([5, 6, 7], 4, 8, 2, build_small_trainer(tmp_path, model))
    assert tokens.shape == mask.shape == (8, 7) and bool(mask.all())
    assert len(torch.unique(tokens[:, :3], dim=0)) == 2
    assert len(torch.unique(tokens, dim=0)) == 8


def test_the_longest_prompt_is_longest_in_tokens(model: Path, tmp_path: Path) -> None:
    trainer = build_small_trainer(tmp_path, model)  # whose tokens are bytes
    identity, prompt = longest_prompt(trainer, [prompt_row("letters", "x" * 10), prompt_row("signs", "€" * 9)])
    assert identity == "signs" and len(prompt) == 28
