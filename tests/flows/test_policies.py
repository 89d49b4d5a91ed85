"""Whole small runs by the command line in which the agents take turns, or are one policy."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from memr1.bank.journal import read_journal
from memr1.rl.checkpoints import read_metrics
from memr1.run_dir import RunDir
from tests.processes import memr1, memr1_killed_when

pytestmark = pytest.mark.slow
FEW = ("data.num_train=2", "data.num_test=2")
ALTERNATING = (*FEW, "training.policies.kind=alternating", "training.memory_manager.num_steps=3")
SHARED = (*FEW, "training.policies.kind=shared", "training.policies.num_steps=2")
ROUND_1 = ("train_round_1_memory_manager", "train_round_1_answer_agent")
QUESTION = {"text": "Where does Ana live?", "answer": "Lisbon", "evidence": ["D1:1"]}
TRANSCRIPT = {
    "id": "mine",
    "sessions": [{"time": "2024-03-02T09:30", "turns": [{"speaker": "Ana", "text": "I live in Lisbon."}]}],
    "questions": [QUESTION],
}


@dataclass
class Finished:
    """What a run left, and what it told when it was repeated or finished."""

    folder: Path
    run: RunDir
    told: str

    def metric(self, name: str) -> list[int]:
        """The steps at which MLflow has a metric of the run."""
        client = MlflowClient(f"sqlite:///{self.folder / 'home' / 'mlflow.db'}")
        [experiment] = client.search_experiments(filter_string="name = 'memr1'")
        [found] = client.search_runs([experiment.experiment_id])
        return [item.step for item in client.get_metric_history(found.info.run_id, name)]

    def bundles(self) -> list[Path]:
        return [path.parent for path in (self.folder / "home" / "artifacts").rglob("pair.json")]

    def steps(self, phase: str) -> list[float]:
        return [line["step"] for line in read_metrics(self.run.checkpoints(phase) / "metrics.jsonl")]


def words(profile: Path, options: tuple[str, ...]) -> list[object]:
    return ["run", profile, *(word for option in options for word in ("--set", option))]


def seals(run: RunDir, stages: tuple[str, ...]) -> list[int]:
    return [run.done_file(stage).stat().st_mtime_ns for stage in stages]


@pytest.fixture(scope="module")
def alternating(tmp_path_factory: pytest.TempPathFactory, small_profile: Path) -> Finished:
    """Killed after the first step of round 2, and repeated."""
    folder = tmp_path_factory.mktemp("alternating")
    in_round_2 = "runs/*/4_checkpoints/round_2_memory_manager/checkpoint-*/DONE.json"
    memr1_killed_when(lambda: any(folder.glob(in_round_2)), folder, *words(small_profile, ALTERNATING))
    run = RunDir(next(folder.glob("runs/*")))
    assert not run.done_file("train_round_2_memory_manager").exists()
    before = seals(run, ROUND_1)
    done = memr1(folder, *words(small_profile, ALTERNATING))
    assert done.returncode == 0, done.stderr
    assert seals(run, ROUND_1) == before
    return Finished(folder, run, done.stderr)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, small_profile: Path) -> Finished:
    folder = tmp_path_factory.mktemp("shared")
    done = memr1(folder, *words(small_profile, SHARED))
    assert done.returncode == 0, done.stderr
    return Finished(folder, RunDir(next(folder.glob("runs/*"))), done.stderr)


def test_a_run_killed_in_its_second_round_goes_on_there(alternating: Finished) -> None:
    assert "[4/8] train_round_1_answer_agent: done before" in alternating.told
    assert "[5/8] train_round_2_memory_manager: " in alternating.told
    assert all(alternating.run.read_done(stage) is not None for stage in alternating.run.stages)
    assert alternating.steps("round_2_memory_manager") == [1, 2, 3]
    assert alternating.steps("round_2_answer_agent") == [1, 2]


def test_every_round_has_folders_and_metrics_of_its_own(alternating: Finished) -> None:
    phases = ["round_1_answer_agent", "round_1_memory_manager", "round_2_answer_agent", "round_2_memory_manager"]
    assert sorted(path.name for path in (alternating.run.root / "3_examples").iterdir()) == phases
    assert sorted(path.name for path in (alternating.run.root / "4_checkpoints").iterdir()) == phases
    assert alternating.metric("round_1_memory_manager/reward") == [1, 2, 3]
    assert alternating.metric("round_2_memory_manager/reward") == [1, 2, 3]


def test_the_banks_of_a_round_are_built_by_the_memory_manager_of_that_round(alternating: Finished) -> None:
    run = alternating.run
    for number in (1, 2):
        journal = read_journal(run.built_banks(f"round_{number}_answer_agent") / "journal.jsonl")
        built_by = {record.source.policy for record in journal}
        assert built_by == {str(run.model(f"round_{number}_memory_manager").resolve())}


def test_the_pair_of_the_last_round_is_registered_and_can_be_asked(alternating: Finished) -> None:
    [bundle] = alternating.bundles()
    for agent in ("memory_manager", "answer_agent"):
        weights = (bundle / agent / "model.safetensors").read_bytes()
        assert weights == (alternating.run.model(f"round_2_{agent}") / "model.safetensors").read_bytes()
    managers = [alternating.run.model(f"round_{number}_memory_manager") / "model.safetensors" for number in (1, 2)]
    assert managers[0].read_bytes() != managers[1].read_bytes()
    assert asked(alternating).returncode == 0


def test_a_shared_policy_is_registered_once_and_serves_as_both_agents(shared: Finished) -> None:
    assert all(shared.run.read_done(stage) is not None for stage in shared.run.stages)
    [bundle] = shared.bundles()
    [weights] = bundle.rglob("*.safetensors")
    assert weights.relative_to(bundle) == Path("shared/model.safetensors")
    assert weights.read_bytes() == (shared.run.model("shared") / "model.safetensors").read_bytes()
    assert "2 steps as one policy with the other agent" in (bundle / "README.md").read_text()
    assert asked(shared).returncode == 0


def test_a_shared_step_mixes_both_roles_and_tells_them_apart(shared: Finished) -> None:
    steps = read_metrics(shared.run.checkpoints("shared") / "metrics.jsonl")
    assert [step["step"] for step in steps] == shared.metric("shared/reward") == [1, 2]
    told = {name for step in steps for name in step}
    assert {"parse_failures", "memory_manager/parse_failures", "answer_agent/parse_failures"} <= told
    assert {"memory_manager/reward", "memory_manager/operations/ADD", "answer_agent/reward"} <= told


def test_a_shared_policy_that_was_promoted_is_scored_as_the_champion(
    shared: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from memr1.registry.promotion import promote

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared.folder / 'home' / 'mlflow.db'}")
    promote("memr1", "1")
    data = shared.folder / "mine.jsonl"
    data.write_text(json.dumps(TRANSCRIPT), encoding="utf-8")
    output = shared.folder / "scored"
    done = memr1(shared.folder, "evaluate", "--model", "models:/memr1@champion", "--data", data, "--output", output)
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "5_evaluation" / "report.json").read_text())
    assert report["systems"]["trained"]["num_questions"] == 1


def test_a_phase_that_the_run_does_not_have_is_named(shared: Finished) -> None:
    done = memr1(shared.folder, "train", os.path.relpath(shared.run.root, shared.folder), "memory-manager")
    assert done.returncode == 1
    assert "no training phase 'memory_manager'" in done.stderr


def asked(finished: Finished):  # type: ignore[no-untyped-def]
    question = json.loads(finished.run.questions.read_text().splitlines()[-1])
    return memr1(finished.folder, "ask", finished.run.root, question["conversation_id"], question["text"])
