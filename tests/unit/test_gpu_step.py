"""The benchmark of real-size steps: its core works on a CPU with a micro shape, and without a GPU it says so."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from memr1.environment import has_gpu
from memr1.rl.sizing import SHAPES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_step")


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU: the benchmark would measure it")
def test_without_a_gpu_it_says_so_and_ends_well(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu_step.py", "--out", out], capture_output=True, text=True, check=True
    )
    assert "this machine has no GPU" in done.stdout
    figures = json.loads(out.read_text())
    assert figures["gpu"] is None and figures["rows"] == [] and "not measured" in figures["note"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stock", "memr1"])
def test_its_core_trains_a_micro_shape_and_times_a_step(benchmark: ModuleType, kind: str) -> None:
    figures = benchmark.run_step(benchmark.MICRO, 64, kind, new_tokens=8)
    assert 0 < figures["seconds"] < 60
    assert figures["completions_per_second"] == pytest.approx(8 / figures["seconds"], rel=0.05)


def test_a_process_that_fails_is_a_row_with_its_reason(benchmark: ModuleType) -> None:
    row = benchmark.measure_row("no such model", 8, "memr1")
    assert row["failure"] == "KeyError: 'no such model'"


def test_the_arithmetic_of_a_step_is_that_of_its_tokens(benchmark: ModuleType) -> None:
    shape = SHAPES["Qwen2.5-7B"]
    tokens, attention = 8 * (1024 + 256), 4 * 28 * 28 * 128 * 640
    assert benchmark.step_flops(shape, 1024, 256) == 5 * tokens * (2 * shape.num_parameters + attention)
