"""The command line: exit codes, where messages go, and no tracebacks."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MEMR1 = [sys.executable, "-m", "flows.cli"]


def memr1(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MEMR1, *words], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_help_names_every_stage_and_answers_within_a_second(tmp_path: Path) -> None:
    memr1("--help", cwd=tmp_path)  # the file cache is not what is measured
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = memr1("--help", cwd=tmp_path)
        seconds.append(time.monotonic() - started)
    assert done.returncode == 0
    for command in ("run", "validate", "build-bank", "train", "evaluate", "register", "config", "doctor", "ask"):
        assert f"\n  {command} " in done.stdout
    assert min(seconds) < 1.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "no-such-profile"], "unknown profile 'no-such-profile'"),
        (["run", "quickstart", "--set", "training.speed=9"], "unknown option"),
        (["run", "quickstart", "--set", "training"], "write section.field=value"),
        (["run", "missing.toml"], "cannot read missing.toml"),
        (["train", "nowhere"], "is not a run directory"),
        (["ask", "nowhere", "c1", "Who?"], "is not a run directory"),
        (["evaluate", "--run", "nowhere", "--data", "x.json"], "is not a run directory"),
    ],
)
def test_a_mistake_is_told_in_words_exits_with_1_and_leaves_nothing(
    tmp_path: Path, words: list[str], message: str
) -> None:
    done = memr1(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["sing"], ["run"], ["evaluate"], ["evaluate", "--data", "x"], ["evaluate", "r", "--data", "x"]]
)
def test_wrong_usage_exits_with_2(tmp_path: Path, words: list[str]) -> None:
    done = memr1(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage: " in done.stderr


def test_a_run_directory_that_cannot_be_written_is_an_error_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = memr1("run", "quickstart", "--run-dir", "file/run", cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot write to" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_with_130_and_without_a_traceback(tmp_path: Path) -> None:
    script = (
        "import flows.cli, time; flows.cli.app = lambda: (print('up', flush=True), time.sleep(60)); flows.cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_the_doctor_finds_this_machine_fit(tmp_path: Path) -> None:
    done = memr1("doctor", cwd=tmp_path)
    assert "deepspeed" in done.stdout
    assert done.returncode == (1 if "MISSING" in done.stdout else 0)


def test_the_environment_can_be_evaluated_by_a_shell(tmp_path: Path) -> None:
    done = memr1("environment", cwd=tmp_path)
    script = done.stdout + 'echo "$PREFECT_HOME"'
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip().endswith("/prefect")
