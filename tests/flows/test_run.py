"""One whole small run by the command line: killed, repeated, asked, scored on another file."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from memr1.run_dir import RunDir
from tests.processes import memr1, memr1_killed_when

pytestmark = pytest.mark.slow
TRANSCRIPT = json.dumps(
    {
        "id": "mine",
        "sessions": [
            {
                "time": "2024-03-02T09:30",
                "turns": [
                    {"speaker": "Ana", "text": "I live in Lisbon."},
                    {"speaker": "Ben", "text": "Nice to hear from you."},
                ],
            }
        ],
        "questions": [{"text": "Where does Ana live?", "answer": "Lisbon", "evidence": ["D1:1"]}],
    }
)


@dataclass
class Finished:
    """What the module's run left."""

    folder: Path
    run: RunDir
    first_seal: int  # modification time of 1_data/DONE.json when the run was killed, in nanoseconds
    told: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small_profile: Path) -> Finished:
    """Start a run, kill it after stage 2, and repeat the command."""
    folder = tmp_path_factory.mktemp("run")
    memr1_killed_when(lambda: any(folder.glob("runs/*/2_bank/DONE.json")), folder, "run", small_profile)
    run = RunDir(next(folder.glob("runs/*")))
    first_seal = run.done_file("validate").stat().st_mtime_ns
    return Finished(folder, run, first_seal, memr1(folder, "run", small_profile))


def test_a_killed_run_goes_on_where_it_stopped_and_does_nothing_twice(finished: Finished) -> None:
    assert finished.told.returncode == 0, finished.told.stderr
    assert "continuing the unfinished run" in finished.told.stderr
    assert finished.run.done_file("validate").stat().st_mtime_ns == finished.first_seal
    assert "[1/6] validate: done before" in finished.told.stderr
    assert [path.name for path in sorted(finished.run.logs.glob("attempt_*"))] == ["attempt_1", "attempt_2"]
    assert all(finished.run.read_done(stage) is not None for stage in finished.run.stages)
    trained = finished.run.read_done("train_answer_agent")
    assert trained is not None and trained.counts["served_step"] in (1, 2) and "validation_reward" in trained.counts


def test_a_run_ends_with_its_table_the_decision_and_the_next_commands(finished: Finished) -> None:
    lines = finished.told.stderr.splitlines()
    assert any(line.startswith("trained ") for line in lines)
    assert any(line.startswith("memr1 version 1: ") for line in lines)
    assert lines[-1].startswith("score another file: memr1 evaluate --run ")


def test_prefect_keeps_off_the_terminal_and_tells_the_log(finished: Finished) -> None:
    assert "prefect" not in finished.told.stderr.lower()
    log = (finished.run.logs / "latest" / "memr1.log").read_text()
    assert "prefect.flow_runs" in log


def test_the_report_holds_the_figures_of_every_system(finished: Finished) -> None:
    report = json.loads((finished.run.evaluation / "report.json").read_text())
    assert set(report["systems"]) == {"warm_start", "trained", "always_add"}
    assert report["dataset"]["num_questions"] == report["systems"]["trained"]["num_questions"] > 0


def test_a_finished_pair_can_be_asked(finished: Finished) -> None:
    question = json.loads(finished.run.questions.read_text().splitlines()[-1])
    done = memr1(finished.folder, "ask", finished.run.root, question["conversation_id"], question["text"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "memories used" in done.stderr


def test_a_conversation_that_is_not_there_is_named(finished: Finished) -> None:
    done = memr1(finished.folder, "ask", finished.run.root, "nobody", "Who?")
    assert done.returncode == 1
    assert "no conversation 'nobody'" in done.stderr


def test_a_trained_pair_is_scored_on_a_file_it_has_never_seen(finished: Finished) -> None:
    data = finished.folder / "mine.jsonl"
    data.write_text(TRANSCRIPT, encoding="utf-8")
    output = finished.folder / "scored"
    done = memr1(finished.folder, "evaluate", "--run", finished.run.root, "--data", data, "--output", output)
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "5_evaluation" / "report.json").read_text())
    assert report["dataset"]["num_questions"] == 1
    assert "trained" in report["systems"]


def test_a_failure_inside_a_flow_is_one_message_with_the_path_of_the_log(finished: Finished, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    profile = tmp_path / "bad.toml"
    profile.write_text(f'[data]\nkind = "transcript"\npath = "{empty}"\n')
    done = memr1(finished.folder, "run", profile)
    assert done.returncode == 1
    assert f"memr1: {empty} is empty" in done.stderr
    assert "Traceback" not in done.stderr
    log = Path(done.stderr.strip().rsplit("the whole log: ", 1)[1])
    assert "Traceback" in (finished.folder / log).read_text()
    assert list((finished.folder / log).parents[2].glob("1_data/*.jsonl")) == []
