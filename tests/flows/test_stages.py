"""What every stage does around its own work: skipping, sealing, resuming. No Prefect server is needed for it."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.stages import finish_stage
from flows.work import Counts
from memr1.config import RunConfig
from memr1.errors import ConfigError, DataError
from memr1.run_dir import RunDir
from memr1.run_start import OpenRun, prepare_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return prepare_run(RunConfig(), tmp_path / "run")


def writes(stage: str, text: str, calls: list[str]) -> Callable[[OpenRun], Counts]:
    """Work that leaves one file and one count."""

    def work(opened: OpenRun) -> Counts:
        calls.append(stage)
        opened.run.done_file(stage).with_name("made.txt").write_text(text)
        return {"num_made": 1}

    return work


def test_a_finished_stage_is_sealed_and_not_done_again(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    calls: list[str] = []
    finish_stage(run.root, "validate", writes("validate", "data", calls))
    done = finish_stage(run.root, "validate", writes("validate", "data", calls))
    assert calls == ["validate"]
    assert done.counts == {"num_made": 1}
    assert "1_data/made.txt" in done.outputs
    assert caplog.messages[-1] == "[1/6] validate: done before (made 1)"


def test_a_stage_says_where_it_wrote_and_how_long_it_took(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    finish_stage(run.root, "validate", writes("validate", "data", []))
    assert caplog.messages[-1] == f"[1/6] validate: made 1 → {run.data} (0 s)"


def test_a_stage_needs_the_earlier_ones(run: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"build_bank needs validate.*memr1 run "):
        finish_stage(run.root, "build_bank", writes("build_bank", "bank", []))
    assert not run.bank.exists()


def test_a_stage_that_failed_keeps_what_it_has_for_its_resume(run: RunDir) -> None:
    def fails_half_way(opened: OpenRun) -> Counts:
        (opened.run.data / "half.txt").write_text("half")
        raise DataError("not today")

    def goes_on(opened: OpenRun) -> Counts:
        assert (opened.run.data / "half.txt").read_text() == "half"
        return {}

    with pytest.raises(DataError):
        finish_stage(run.root, "validate", fails_half_way)
    assert run.read_done("validate") is None
    finish_stage(run.root, "validate", goes_on)


def test_a_stage_whose_inputs_changed_begins_afresh(run: RunDir) -> None:
    calls: list[str] = []
    finish_stage(run.root, "validate", writes("validate", "old", calls))
    finish_stage(run.root, "build_bank", writes("build_bank", "bank", calls))
    (run.bank / "left_over.txt").write_text("of the old data")
    run.done_file("validate").unlink()
    finish_stage(run.root, "validate", writes("validate", "new", calls))
    finish_stage(run.root, "build_bank", writes("build_bank", "bank", calls))
    assert calls == ["validate", "build_bank", "validate", "build_bank"]
    assert not (run.bank / "left_over.txt").exists()


def test_doing_a_stage_again_with_the_same_result_leaves_the_later_ones_done(run: RunDir) -> None:
    calls: list[str] = []
    finish_stage(run.root, "validate", writes("validate", "same", calls))
    finish_stage(run.root, "build_bank", writes("build_bank", "bank", calls))
    run.done_file("validate").unlink()
    finish_stage(run.root, "validate", writes("validate", "same", calls))
    finish_stage(run.root, "build_bank", writes("build_bank", "bank", calls))
    assert calls == ["validate", "build_bank", "validate"]
