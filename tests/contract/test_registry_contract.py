"""MLflow's model registry, for real (SQLite): register, judge, promote, load, serve; each once, whatever happens."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from memr1.agents.pair import load_pair
from memr1.config import AGENTS, RunConfig
from memr1.data.conversation import Conversation
from memr1.data.stored import read_dataset
from memr1.data.synthetic import SyntheticOptions, build_synthetic_dataset
from memr1.errors import RegistryError
from memr1.registry.gate import GateDecision
from memr1.registry.promotion import GateRecord, Registration, register_run, replay_gate
from memr1.registry.tracking import connect
from memr1.registry.versions import champion_version, download_champion, load_model_pair
from memr1.run_dir import RunDir
from memr1.tiny.weights import agent_folder
from tests.contract.registry_runs import NOTICE, make_run, scripted

MakeRun = Callable[..., RunDir]


@pytest.fixture
def start_run(tmp_path: Path, registry_home: Path) -> MakeRun:
    """Makes runs by name in a fresh home."""
    return lambda name, **figures: make_run(tmp_path / "runs" / name, **figures)


def register(run: RunDir, says: str = "Rome") -> Registration:
    return register_run(run, scripted(says))


def versions() -> list[str]:
    return sorted(str(item.version) for item in connect().search_model_versions("name = 'memr1'"))


def test_the_first_pair_that_beats_the_warm_start_becomes_champion(start_run: MakeRun) -> None:
    registration = register(start_run("first"))
    assert (registration.version, registration.promoted, registration.champion) == ("1", True, "1")
    client = connect()
    assert client.get_model_version_by_alias("memr1", "challenger").version == 1
    assert champion_version(client, "memr1") == "1"


def test_a_pair_that_training_did_not_improve_is_registered_but_does_not_serve(start_run: MakeRun) -> None:
    registration = register(start_run("first", trained=10, warm_start=10))
    assert (registration.promoted, registration.champion) == (False, "")
    assert champion_version(connect(), "memr1") is None
    assert download_champion("memr1") is None


def test_a_better_challenger_replaces_the_champion_and_a_worse_one_does_not(start_run: MakeRun) -> None:
    register(start_run("first", trained=20))
    worse = register(start_run("second", trained=18, champion=("1", 20)))
    assert (worse.version, worse.promoted, worse.champion) == ("2", False, "1")
    better = register(start_run("third", trained=35, champion=("1", 20)))
    assert (better.version, better.promoted, better.champion) == ("3", True, "3")
    client = connect()
    assert champion_version(client, "memr1") == "3"
    assert client.get_model_version("memr1", "3").tags["memr1.replaced_version"] == "1"


def test_registering_the_same_run_again_changes_nothing(start_run: MakeRun) -> None:
    run = start_run("first")
    first = register(run)
    gate = (run.registry / "gate.json").read_bytes()
    assert register(run) == first
    assert (run.registry / "gate.json").read_bytes() == gate
    assert versions() == ["1"]


@pytest.mark.parametrize(
    "last_step",
    ["memr1.registry.promotion.log_evaluation", "mlflow.register_model", "memr1.registry.promotion.promote"],
)
def test_a_stage_killed_at_any_step_gives_one_version_when_repeated(
    start_run: MakeRun, monkeypatch: pytest.MonkeyPatch, last_step: str
) -> None:
    class Killed(Exception):
        """The machine went away."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    run = start_run("first")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(last_step, die)
        register(run)
    assert register(run).promoted
    assert versions() == ["1"]
    experiment = connect().get_experiment_by_name("memr1").experiment_id
    assert len(connect().search_logged_models([experiment])) == 1
    assert len(connect().search_runs([experiment])) == 1


def test_a_stage_killed_after_the_promotion_still_says_promoted(start_run: MakeRun) -> None:
    run = start_run("first")
    register(run)
    for path in run.registry.iterdir():
        path.unlink()
    again = register(run)
    assert (again.version, again.promoted, again.champion) == ("1", True, "1")


def test_a_comparison_with_a_version_that_no_longer_serves_promotes_nothing(start_run: MakeRun) -> None:
    register(start_run("first", trained=20))
    late = start_run("late", trained=40, champion=("1", 20))
    register(start_run("second", trained=30, champion=("1", 20)))
    registration = register(late)
    assert (registration.version, registration.promoted, registration.champion) == ("3", False, "2")
    gate = GateRecord.model_validate_json((late.registry / "gate.json").read_bytes())
    assert "memr1 version 1" in gate.decision.reasons[-1] and "version 2" in gate.decision.reasons[-1]


def test_an_evaluation_from_before_the_first_champion_promotes_nothing(start_run: MakeRun) -> None:
    early = start_run("early", trained=40)
    register(start_run("first", trained=20))
    assert not register(early).promoted


def test_the_decision_can_be_made_again_from_gate_json(start_run: MakeRun) -> None:
    run = start_run("first")
    register(run)
    written = GateDecision.model_validate(json.loads((run.registry / "gate.json").read_text())["decision"])
    assert replay_gate(run.registry / "gate.json") == written
    with pytest.raises(RegistryError, match="nothing"):
        replay_gate(run.registry / "nothing.json")


def test_a_version_says_where_it_comes_from_and_how_good_it_is(start_run: MakeRun) -> None:
    run = start_run("first")
    registration = register(run)
    tags = connect().get_model_version("memr1", "1").tags
    assert tags["memr1.exact_match"] == "0.7500"
    assert tags["memr1.promoted"] == "true"
    assert tags["memr1.dataset"] == "test" and tags["memr1.licence_notice"] == NOTICE
    assert "0.750" in tags["memr1.gate"]
    found = connect().get_run(registration.mlflow_run_id)
    assert found.data.metrics["evaluation/trained/exact_match"] == 0.75
    assert found.data.metrics["evaluation/warm_start/exact_match"] == 0.25
    assert tags["memr1.run_key"] == found.data.tags["memr1.run_key"]
    assert found.info.status == "FINISHED"


def test_the_downloaded_champion_is_the_pair_with_its_card(start_run: MakeRun) -> None:
    register(start_run("first"))
    folder = download_champion("memr1")
    assert folder is not None
    assert json.loads((folder / "served_version.json").read_text()) == {"model_name": "memr1", "version": "1"}
    card = (folder / "README.md").read_text()
    assert NOTICE in card and "0.750" in card and "memr1" in card
    assert load_pair(folder).settings.dataset.name == "test"
    assert load_model_pair("models:/memr1@champion") == load_model_pair("models:/memr1/1") == folder


def test_versions_of_a_new_database_are_not_taken_from_the_cache(
    start_run: MakeRun, registry_home: Path, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(start_run("first", says="Rome"), "Rome")
    old = download_champion("memr1")
    (registry_home / "other.db").write_bytes(mlflow_template.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry_home / 'other.db'}")
    register(start_run("second", says="Oslo"), "Oslo")
    new = download_champion("memr1")
    assert new is not None and new != old
    assert "Oslo" in (new / "pair.json").read_text()


@pytest.mark.parametrize("uri", ["models:/memr1", "runs:/abc/pair", "models:/memr1@champion/x", "/tmp/pair", ""])
def test_what_is_no_registered_model_is_refused(registry_home: Path, uri: str) -> None:
    with pytest.raises(RegistryError, match="models:/NAME@ALIAS"):
        load_model_pair(uri)


@pytest.mark.parametrize("uri", ["models:/memr1@champion", "models:/memr1/9"])
def test_a_model_that_does_not_exist_is_named(registry_home: Path, uri: str) -> None:
    with pytest.raises(RegistryError, match="memr1"):
        load_model_pair(uri)


def test_a_model_that_memr1_did_not_make_is_refused(registry_home: Path, tmp_path: Path) -> None:
    code = tmp_path / "other.py"
    code.write_text("import mlflow\nmlflow.models.set_model(mlflow.pyfunc.PythonModel())\n")
    connect()
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="other", python_model=str(code), registered_model_name="memr1", pip_requirements=["mlflow"]
        )
    with pytest.raises(RegistryError, match="holds no pair"):
        load_model_pair("models:/memr1/1")
    assert not list((registry_home / "cache" / "pairs").iterdir())


@pytest.mark.slow
def test_the_champion_with_its_weights_answers_in_a_fresh_process_that_has_no_memr1(
    start_run: MakeRun, tmp_path: Path, registry_home: Path
) -> None:
    run, config = start_run("first"), RunConfig.model_validate({"retrieval": {"entries_per_speaker": 8}})
    for agent in AGENTS:
        shutil.copytree(agent_folder(agent), run.model(agent))
    assert register_run(run, config).promoted
    world = build_synthetic_dataset(SyntheticOptions(level="easy", num_train=1, num_validation=1, num_test=1), seed=5)
    told = world.conversations[0]
    asked = [item for item in world.questions if item.conversation_id == told.id]
    rows = [{"conversation": told.model_dump_json(), "question": item.text} for item in asked]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    code = (
        "import json, sys, mlflow, pandas as pd\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"  # memr1's own installation
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "pair = mlflow.pyfunc.load_model('models:/memr1@champion')\n"
        "import memr1\n"
        "answers = list(pair.predict(pd.DataFrame(json.load(open(sys.argv[2]))))['answer'])\n"
        "print(json.dumps({'code': memr1.__file__, 'answers': answers}))\n"
    )
    arguments = [mlflow.get_tracking_uri(), str(tmp_path / "rows.json")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert Path(said["code"]).is_relative_to(registry_home)  # the bundle's own code ran
    num_right = sum(answer == item.answer for answer, item in zip(said["answers"], asked, strict=True))
    assert num_right >= len(asked) / 5  # the warm start answers about half


@pytest.mark.slow
def test_the_loaded_model_takes_transcripts_and_refuses_other_columns(
    start_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # mlflow puts the bundle's code in front
    run = start_run("first")
    register(run)
    pair = mlflow.pyfunc.load_model("models:/memr1@champion")
    said = {"time": "2024-03-02T09:30", "turns": [{"speaker": "Ann", "text": "I moved to Rome."}]}
    stored: Conversation = read_dataset(run).conversations[0]
    frame = pd.DataFrame(
        {
            "conversation": [json.dumps({"id": "x", "sessions": [said]}), stored.model_dump_json()],
            "question": ["Where does Ann live?", "Where does Ann live?"],
        }
    )
    assert list(pair.predict(frame)["answer"]) == ["Rome", "Rome"]
    with pytest.raises(mlflow.exceptions.MlflowException, match="question"):
        pair.predict(frame.drop(columns="question"))
