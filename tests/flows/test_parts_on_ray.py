"""The training banks, read in parts: by tasks on Ray where it is installed, and the same work without it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.parts_on_ray import read_parts
from memr1.agents.bank_stage import build_training_banks, conversations_to_build, read_part
from memr1.bank.exchange import export_bank, import_bank
from memr1.config import InMemoryBank, RayBuild, RunConfig, SyntheticData
from memr1.data.loading import load_dataset
from memr1.data.stored import write_dataset
from memr1.errors import ConfigError
from memr1.run_dir import RunDir
from memr1.run_start import open_run, prepare_run

HAS_RAY = importlib.util.find_spec("prefect_ray") is not None
BUILD = RayBuild(kind="ray", conversations_per_part=2)
CONFIG = RunConfig(
    data=SyntheticData(num_train=2, num_validation=1, num_test=1), bank=InMemoryBank(kind="in_memory"), build=BUILD
)


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[[str], RunDir]:
    def prepare(name: str) -> RunDir:
        run = prepare_run(CONFIG, tmp_path / name)
        write_dataset(run, load_dataset(CONFIG.data, CONFIG.seed))
        return run

    return prepare


def finish(run: RunDir) -> dict[str, bytes]:
    """The stage's own work; its files and the exported bank, and what it had left to read."""
    summary = build_training_banks(run, CONFIG, run.root / "vectors.sqlite", lambda done, total: None)
    export_bank(run.bank / "store", run.root / "exported.jsonl")
    paths = [run.root / "exported.jsonl", run.bank / "entries.jsonl", run.bank / "operations.jsonl"]
    counted = summary.model_copy(update={"seconds": 0, "num_facts": 0}).model_dump_json().encode()
    return {**{path.name: path.read_bytes() for path in paths}, "summary": counted}


def test_parts_that_are_gathered_are_the_banks_of_one_machine(new_run: Callable[[str], RunDir]) -> None:
    whole, parted = new_run("whole"), new_run("parted")
    for first in range(0, len(conversations_to_build(parted, CONFIG)), BUILD.conversations_per_part):
        journal = read_part(parted, CONFIG, parted.root / "vectors.sqlite", first)
        assert import_bank(journal, parted.bank / "store") > 0
        assert import_bank(journal, parted.bank / "store") == 0  # repeated after a crash
    assert finish(parted) == finish(whole)


@pytest.mark.skipif(HAS_RAY, reason="the extra [ray] is installed")
def test_without_the_extra_the_error_says_how_to_install_it(new_run: Callable[[str], RunDir]) -> None:
    with open_run(new_run("run")) as opened, pytest.raises(ConfigError, match=r"not installed.*\[ray\]"):
        read_parts(opened, BUILD)


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.skipif(not HAS_RAY, reason="the extra [ray] is not installed")
def test_parts_read_on_ray_are_the_banks_of_one_machine(new_run: Callable[[str], RunDir]) -> None:
    whole, parted = new_run("whole"), new_run("parted")
    with prefect_test_harness(), open_run(parted) as opened:
        read_parts(opened, BUILD)
    assert sorted(path.name for path in (parted.bank / "parts").iterdir()) == ["000000", "000002"]
    assert finish(parted) == finish(whole)
