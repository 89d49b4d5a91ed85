"""Plans of systems: what they load, what their answers depend on, how many run at once."""

from pathlib import Path

import pytest

from memr1.agents.pair import pair_settings, write_pair
from memr1.config import RunConfig
from memr1.errors import EvaluationError
from memr1.evaluation.launch import count_processes
from memr1.evaluation.stage import describe_limits
from memr1.evaluation.systems import SystemPlan, digest_work, has_small_models, plan_systems
from memr1.run_dir import RunDir
from tests.builders import conversation, dataset, question

DATA = dataset([conversation("c1")], [question("q1")])


@pytest.fixture
def trained(tmp_path: Path) -> RunDir:
    """A run directory with something where the trained weights stand."""
    run = RunDir(tmp_path / "run")
    for folder in (run.model("memory_manager"), run.model("answer_agent")):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
    return run


def test_the_champion_joins_the_configured_systems(trained: RunDir, tmp_path: Path) -> None:
    plans = plan_systems(trained, RunConfig(), ("warm_start", "trained", "always_add"), champion=tmp_path)
    assert [plan.name for plan in plans] == ["warm_start", "trained", "always_add", "champion"]
    assert [plan.always_add for plan in plans] == [False, False, True, False]
    assert plans[1].models["answer_agent"] == trained.model("answer_agent")
    assert plans[0].models == {} and plans[3].pair_folder == tmp_path


def test_untrained_weights_are_missed_by_name(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no trained weights of the memory_manager"):
        plan_systems(RunDir(tmp_path), RunConfig(), ("trained",))


def test_a_plan_survives_the_way_to_another_process(trained: RunDir) -> None:
    plan = plan_systems(trained, RunConfig(), ("trained",))[0]
    assert SystemPlan.model_validate_json(plan.model_dump_json()) == plan


def test_other_weights_are_other_work(trained: RunDir) -> None:
    plan = plan_systems(trained, RunConfig(), ("trained",))[0]
    before = digest_work(plan, DATA, ["c1"])
    assert digest_work(plan, DATA, ["c1"]) == before
    (trained.model("answer_agent") / "model.safetensors").write_bytes(b"WEIGHTS")
    assert digest_work(plan, DATA, ["c1"]) != before


def test_other_questions_settings_or_conversations_are_other_work() -> None:
    plan = SystemPlan(name="warm_start", config=RunConfig())
    other_retrieval = RunConfig.model_validate({"retrieval": {"entries_per_speaker": 3}})
    digests = {
        digest_work(plan, DATA, ["c1"]),
        digest_work(plan, DATA, []),
        digest_work(plan, DATA.model_copy(update={"sha256": "1" * 64}), ["c1"]),
        digest_work(SystemPlan(name="warm_start", config=other_retrieval), DATA, ["c1"]),
        digest_work(SystemPlan(name="warm_start", config=RunConfig(), always_add=True), DATA, ["c1"]),
    }
    assert len(digests) == 5


def test_what_does_not_touch_an_answer_is_not_other_work() -> None:
    longer = RunConfig.model_validate({"training": {"checkpoint_every": 3}})
    first = digest_work(SystemPlan(name="warm_start", config=RunConfig()), DATA, ["c1"])
    assert digest_work(SystemPlan(name="warm_start", config=longer), DATA, ["c1"]) == first


def test_large_or_unknown_weights_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memr1.evaluation.launch.has_gpu", lambda: False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    tiny = SystemPlan(name="warm_start", config=RunConfig())
    hub = {"generator": {"kind": "transformers", "model": "Qwen/Qwen2.5-7B-Instruct"}}
    large = SystemPlan(name="trained", config=RunConfig.model_validate({"answer_agent": hub}))
    assert has_small_models(tiny) and not has_small_models(large)
    assert count_processes([tiny, tiny]) == 2
    assert count_processes([tiny] * 5) == 3
    assert count_processes([tiny, large]) == 1


def test_systems_do_not_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memr1.evaluation.launch.has_gpu", lambda: True)
    assert count_processes([SystemPlan(name="warm_start", config=RunConfig())] * 3) == 1


def test_a_tiny_model_on_real_conversations_is_called_what_it_is(tmp_path: Path) -> None:
    write_pair(tmp_path / "pair", pair_settings(RunConfig()), {})
    real, made_up = DATA.model_copy(update={"name": "locomo"}), DATA.model_copy(update={"name": "synthetic/easy"})
    for plan in (
        SystemPlan(name="warm_start", config=RunConfig()),
        SystemPlan(name="trained", pair_folder=tmp_path / "pair"),
    ):
        assert any("0.8 million parameters" in note for note in describe_limits([plan], real))
        assert describe_limits([plan], made_up) == []
