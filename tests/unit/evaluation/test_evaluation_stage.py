"""Stage 4 with real processes and scripted models."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memr1.agents.pair import pair_settings, write_pair
from memr1.config import RunConfig
from memr1.data.stored import write_dataset
from memr1.errors import DatasetFormatError, EvaluationError
from memr1.evaluation.report import read_report_answers
from memr1.evaluation.stage import evaluate_file, evaluate_run
from memr1.evaluation.systems import SystemPlan
from memr1.records import write_json
from memr1.run_dir import RunDir
from tests.builders import conversation, dataset, question

pytestmark = pytest.mark.slow


def scripted(answer: str, **sections: object) -> RunConfig:
    """Agents that always do nothing, and always answer the same."""
    reply = json.dumps({"memories": [], "answer": answer})
    agents = {
        "memory_manager": {"generator": {"kind": "scripted", "reply": '{"operations":[]}'}},
        "answer_agent": {"generator": {"kind": "scripted", "reply": reply}},
    }
    return RunConfig.model_validate(agents | sections)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings: with them at hand a process need not load the embedding model, which takes it seconds."""
    return tmp_path_factory.mktemp("cache") / "vectors.sqlite"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Two test conversations with one question each, and one that only trains."""
    data = dataset(
        [conversation("c1"), conversation("c2"), conversation("seen")],
        [question("q1", conversation_id="c1"), question("q2", "?", "Oslo", conversation_id="c2")],
        splits={"train": ["seen"], "test": ["c1", "c2"]},
    )
    run = RunDir(tmp_path / "run")
    write_dataset(run, data)
    return run


def test_every_system_is_evaluated_and_compared(run: RunDir, tmp_path: Path, cache: Path) -> None:
    champion = tmp_path / "champion"
    write_pair(champion, pair_settings(scripted("Oslo")), {})
    write_json(champion / "served_version.json", {"model_name": "memr1", "version": "7"})
    seen: set[str] = set()
    report = evaluate_run(
        run,
        scripted("Rome"),
        champion=champion,
        vector_cache=cache,
        on_progress=lambda system, phase, done, total: seen.add(system),
    )
    assert list(report.systems) == ["warm_start", "trained", "always_add", "champion"]
    assert all(score.exact_match == 0.5 for score in report.systems.values())
    assert report.systems["always_add"].build.operations["ADD"] == 4
    assert report.systems["trained"].build.operations == {"ADD": 0, "UPDATE": 0, "DELETE": 0, "NOOP": 4}
    assert report.systems["always_add"].evidence_recall == 1.0
    assert report.systems["trained"].evidence_recall == 0.0
    assert report.champion is not None and report.champion.version == "7"
    assert (report.dataset.split, report.dataset.num_questions) == ("test", 2)
    assert len(report.differences) == 2 * 6
    assert {path.name for path in run.evaluation.iterdir()} == {
        "answers.jsonl",
        "report.html",
        "report.json",
        "report.md",
        "systems",
    }
    answers = read_report_answers(run.evaluation)
    assert [item.answer for item in answers["champion"]] == ["Oslo", "Oslo"]


def test_a_system_that_is_complete_is_not_run_again_unless_its_work_changed(run: RunDir, cache: Path) -> None:
    config = scripted("Rome", evaluation={"systems": ["warm_start", "always_add"]})
    evaluate_run(run, config, vector_cache=cache)
    scores = [run.evaluation / "systems" / name / "score.json" for name in ("warm_start", "always_add")]
    before = [path.stat().st_mtime_ns for path in scores]
    (run.evaluation / "report.json").unlink()
    evaluate_run(run, config, vector_cache=cache)
    assert [path.stat().st_mtime_ns for path in scores] == before
    other = scripted("Oslo", evaluation={"systems": ["warm_start"]})
    evaluate_run(run, other, vector_cache=cache)
    assert read_report_answers(run.evaluation)["warm_start"][0].answer == "Oslo"


def test_a_system_that_fails_ends_the_stage_with_its_words_and_its_log(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    generator = {"generator": {"kind": "transformers", "model": str(tmp_path / "empty")}}
    config = RunConfig.model_validate({"memory_manager": generator, "evaluation": {"systems": ["warm_start"]}})
    with pytest.raises(EvaluationError, match=r"system warm_start.*empty[\s\S]*evaluate_warm_start\.log"):
        evaluate_run(run, config, log_folder=tmp_path / "logs")
    assert not (run.evaluation / "report.json").exists()


def test_any_dataset_file_can_be_scored(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    spoken = {"time": "2024-03-02T09:30", "turns": [{"speaker": "Ann", "text": "I moved to Rome."}]}
    asked = {"text": "Where does Ann live?", "answer": "Rome", "category": 9}
    file.write_text(json.dumps({"id": "mine", "sessions": [spoken], "questions": [asked]}) + "\n")
    output = RunDir(tmp_path / "output")
    report = evaluate_file([SystemPlan(name="trained", config=scripted("Rome"))], file, output)
    assert (report.dataset.split, report.dataset.name) == ("all", "transcript/mine")
    assert report.systems["trained"].by_category["9"].exact_match == 1.0
    assert report.systems["trained"].evidence_recall is None
    assert any("evidence" in note for note in report.notes)
    assert (output.evaluation / "report.html").exists()


def test_a_file_that_cannot_be_used_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"id": "mine", "sessions": [')
    with pytest.raises(DatasetFormatError):
        evaluate_file(
            [SystemPlan(name="trained", config=scripted("Rome"))], tmp_path / "mine.jsonl", RunDir(tmp_path / "output")
        )
    assert not (tmp_path / "output").exists()


def test_a_killed_launcher_leaves_no_process_behind(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:  # a model server that accepts and never answers keeps the process busy
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = {"generator": {"kind": "endpoint", "model": "any", "timeout_seconds": 600}}
        config = scripted("Rome", memory_manager=endpoint, evaluation={"systems": ["warm_start"]})
        write_json(run.config, config.model_dump(mode="json"))
        code = (
            "import sys; from pathlib import Path\n"
            "from memr1.config import read_resolved_config; from memr1.run_dir import RunDir\n"
            "from memr1.evaluation.stage import evaluate_run\n"
            "run = RunDir(Path(sys.argv[1])); evaluate_run(run, read_resolved_config(run.config))\n"
        )
        monkeypatch.setenv("MEMR1_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        launcher = subprocess.Popen([sys.executable, "-c", code, str(run.root)])
        journal = run.evaluation / "systems" / "warm_start" / "bank" / "journal.jsonl"
        try:
            wait_until(lambda: journal.exists() and find_workers(run))
        finally:
            launcher.send_signal(signal.SIGKILL)
            launcher.wait()
        wait_until(lambda: not find_workers(run))


def find_workers(run: RunDir) -> list[int]:
    """Process ids of the workers of this run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"memr1.evaluation.worker" in command and os.fsencode(run.root) in command:
            found.append(int(entry.name))
    return found


def wait_until(condition, seconds: float = 120.0) -> None:
    """Fail when it does not come true in time."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.2)
