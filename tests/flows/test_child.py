"""Work in a process of its own: results, logs, progress and errors come back; nothing is left behind."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.child import in_child
from flows.work import Counts
from memr1.config import RunConfig
from memr1.console import OnProgress
from memr1.errors import DataError, Memr1Error
from memr1.run_dir import RunDir
from memr1.run_start import OpenRun, open_run, prepare_run
from tests.processes import fresh_environment, is_running, wait_until

ROOT = Path(__file__).parents[2]


def counts(run: RunDir, config: RunConfig, on_progress: OnProgress) -> Counts:
    logging.getLogger("memr1.work").info("working for seed %d", config.seed)
    print("what a library prints")
    on_progress(1, 2)
    on_progress(2, 2)
    return {"num_processes": 1, "process": os.getpid()}


def refuses(run: RunDir, config: RunConfig, on_progress: OnProgress) -> Counts:
    raise DataError("row 7 is wrong")


def dies(run: RunDir, config: RunConfig, on_progress: OnProgress) -> Counts:
    os.kill(os.getpid(), 9)
    return {}


def waits(run: RunDir, config: RunConfig, on_progress: OnProgress) -> Counts:
    (run.root / "child.pid").write_text(str(os.getpid()))
    time.sleep(600)
    return {}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.chdir(ROOT)  # children find this module
    return prepare_run(RunConfig(), tmp_path / "run")


def test_counts_logs_and_progress_come_back_from_another_process(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with open_run(run) as opened:
        result = in_child(counts, "counting")(opened)
    assert result["num_processes"] == 1
    assert result["process"] != os.getpid()
    assert ("memr1.work", logging.INFO, "working for seed 7") in caplog.record_tuples
    assert any(line.startswith("counting: 100 %") for line in caplog.messages)
    assert "what a library prints" in (run.logs / "latest" / "counts.log").read_text()


def repeats(run: RunDir, config: RunConfig, on_progress: OnProgress, word: str) -> Counts:
    return {word: 1}


def test_a_child_is_told_more_than_the_run(run: RunDir) -> None:
    with open_run(run) as opened:
        assert in_child(repeats, "repeating", "round_2_memory_manager")(opened) == {"round_2_memory_manager": 1}


def test_an_error_keeps_its_class_and_its_words_and_leaves_its_traceback_in_the_log(run: RunDir) -> None:
    with open_run(run) as opened, pytest.raises(DataError, match="row 7 is wrong"):
        in_child(refuses, "reading")(opened)
    assert "Traceback" in (run.logs / "latest" / "refuses.log").read_text()


def test_a_process_that_dies_without_a_word_is_an_error_with_its_log(run: RunDir) -> None:
    with open_run(run) as opened, pytest.raises(Memr1Error, match=r"code -9.*dies\.log"):
        in_child(dies, "dying")(opened)


def begin_to_wait(root: str) -> None:
    with open_run(RunDir(Path(root))) as opened:
        in_child(waits, "waiting")(OpenRun(opened.run, opened.config, opened.logs))


@pytest.mark.parametrize("signal_number", [2, 9])
def test_a_child_does_not_outlive_a_parent_that_is_interrupted_or_killed(run: RunDir, signal_number: int) -> None:
    script = "import sys; from tests.flows.test_child import begin_to_wait; begin_to_wait(sys.argv[1])"
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(run.root)], env=fresh_environment(run.root), stderr=subprocess.DEVNULL
    )
    wait_until((run.root / "child.pid").exists)
    time.sleep(0.2)  # the file may still be empty
    child = int((run.root / "child.pid").read_text())
    os.kill(parent.pid, signal_number)
    parent.wait(60)
    wait_until(lambda: not is_running(child))
