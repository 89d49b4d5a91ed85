"""Which policy learns when, what it begins with, and where that lies."""

from pathlib import Path

import pytest

from memr1.config import RunConfig, load_config
from memr1.errors import ConfigError
from memr1.phases import bank_phase, newest_phases, phase_seed, roles_of, run_stages, training_phases
from memr1.records import write_json
from memr1.run_dir import RunDir


def config_of(kind: str, **options: object) -> RunConfig:
    return RunConfig.model_validate({"training": {"policies": {"kind": kind, **options}}})


STAGED, ALTERNATING, SHARED = RunConfig(), config_of("alternating", num_rounds=3), config_of("shared")


def test_the_agents_are_trained_one_after_the_other_unless_told_otherwise() -> None:
    assert training_phases(STAGED) == ("memory_manager", "answer_agent")
    assert run_stages(STAGED) == (
        "validate", "build_bank", "train_memory_manager", "train_answer_agent", "evaluate", "register",
    )  # fmt: skip


def test_alternating_agents_have_a_phase_each_in_every_round() -> None:
    phases = training_phases(ALTERNATING)
    assert phases[:3] == ("round_1_memory_manager", "round_1_answer_agent", "round_2_memory_manager")
    assert len(phases) == 6
    assert [roles_of(phase) for phase in phases[:2]] == [("memory_manager",), ("answer_agent",)]


def test_a_shared_policy_has_one_phase_in_which_it_plays_both_roles() -> None:
    assert training_phases(SHARED) == ("shared",)
    assert roles_of("shared") == ("memory_manager", "answer_agent")
    assert newest_phases(SHARED) == {"memory_manager": "shared", "answer_agent": "shared"}


@pytest.mark.parametrize(
    ("config", "phase", "manager", "answer_agent", "banks_of"),
    [
        (STAGED, "memory_manager", None, None, None),
        (STAGED, "answer_agent", "memory_manager", None, "answer_agent"),
        (ALTERNATING, "round_1_memory_manager", None, None, None),
        (ALTERNATING, "round_1_answer_agent", "round_1_memory_manager", None, "round_1_answer_agent"),
        (
            ALTERNATING, "round_2_memory_manager", "round_1_memory_manager", "round_1_answer_agent",
            "round_1_answer_agent",
        ),
        (
            ALTERNATING, "round_3_answer_agent", "round_3_memory_manager", "round_2_answer_agent",
            "round_3_answer_agent",
        ),
        (SHARED, "shared", None, None, None),
    ],
)  # fmt: skip
def test_a_phase_begins_with_the_pair_as_the_phases_before_left_it(
    config: RunConfig, phase: str, manager: str | None, answer_agent: str | None, banks_of: str | None
) -> None:
    before = newest_phases(config, before=phase)
    assert (before.get("memory_manager"), before.get("answer_agent")) == (manager, answer_agent)
    assert bank_phase(config, before=phase) == banks_of


def test_the_banks_of_the_served_manager_are_those_of_the_last_answer_agent() -> None:
    assert [bank_phase(config) for config in (STAGED, ALTERNATING)] == ["answer_agent", "round_3_answer_agent"]
    assert bank_phase(SHARED) is None


def test_a_phase_of_another_kind_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no training phase 'memory_manager' .*'shared': use shared"):
        newest_phases(SHARED, before="memory_manager")


def test_every_round_draws_anew() -> None:
    assert [phase_seed(ALTERNATING, phase) for phase in training_phases(ALTERNATING)] == [7, 7, 8, 8, 9, 9]
    assert [phase_seed(STAGED, phase) for phase in training_phases(STAGED)] == [7, 7]


def test_the_folders_of_a_phase_have_its_name(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.examples("memory_manager", "memory_manager") == tmp_path / "3_examples" / "memory_manager"
    assert run.examples("shared", "answer_agent") == tmp_path / "3_examples" / "shared" / "answer_agent"
    folders = [tmp_path / part / "round_2_answer_agent" for part in ("3_examples", "4_checkpoints")]
    assert run.folders("train_round_2_answer_agent") == folders
    assert run.model("answer_agent") == tmp_path / "4_checkpoints" / "answer_agent" / "model"


def test_the_served_weights_are_those_of_the_last_phase_of_each_agent(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.models(STAGED) == {name: run.model(name) for name in ("memory_manager", "answer_agent")}
    assert run.models(ALTERNATING)["memory_manager"] == run.model("round_3_memory_manager")
    assert set(run.models(SHARED).values()) == {run.model("shared")}
    assert run.models(SHARED, before="shared") == {}


def test_an_agent_that_is_not_trained_has_no_weights(tmp_path: Path) -> None:
    endpoint = {"generator": {"kind": "endpoint", "model": "judge"}}
    assert set(RunDir(tmp_path).models(RunConfig.model_validate({"answer_agent": endpoint}))) == {"memory_manager"}


def test_the_journals_are_those_of_stage_2_until_a_trained_manager_has_built_banks(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.journal(ALTERNATING, "round_1_memory_manager") == run.bank / "operations.jsonl"
    assert run.journal(SHARED, "shared") == run.bank / "operations.jsonl"
    built = tmp_path / "3_examples" / "round_1_answer_agent" / "bank" / "journal.jsonl"
    assert run.journal(ALTERNATING, "round_1_answer_agent") == built
    assert run.journal(ALTERNATING, "round_2_memory_manager") == built


def test_a_later_round_depends_on_what_an_earlier_one_left(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_json(run.config, ALTERNATING.model_dump(mode="json"))
    for stage in run.stages:
        run.folders(stage)[-1].mkdir(parents=True)
        run.write_done(stage, {}, 0.0)
    (run.checkpoints("round_1_answer_agent") / "weights").write_text("others")
    run.write_done("train_round_1_answer_agent", {}, 0.0)
    done = {stage: run.read_done(stage) is not None for stage in run.stages}
    assert [stage for stage, is_done in done.items() if is_done] == list(run.stages[:4])


def test_a_shared_policy_needs_one_model() -> None:
    with pytest.raises(ConfigError, match=r"one model for both agents, but .*'tiny'.*'other'.*name the same model"):
        load_config("quickstart", ["training.policies.kind=shared", "answer_agent.generator.model=other"])


def test_a_shared_policy_needs_a_model_that_can_be_trained() -> None:
    scripted = [f"{agent}.generator.{word}" for agent in ("memory_manager", "answer_agent") for word in ("reply=x",)]
    kinds = [f"{agent}.generator.kind=scripted" for agent in ("memory_manager", "answer_agent")]
    with pytest.raises(ConfigError, match='of kind "transformers"'):
        load_config("quickstart", ["training.policies.kind=shared", *kinds, *scripted])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.policies.num_rounds=2"], "unknown option 'training.policies.num_rounds'"),
        (["training.policies.kind=alternating", "training.policies.num_rounds=1"], "greater than or equal to 2"),
        (["training.policies.kind=shared", "training.policies.num_rounds=2"], "unknown option"),
        (
            ["training.policies.kind=joint"],
            "does not match any of the expected tags: 'staged', 'alternating', 'shared'",
        ),
    ],
)
def test_an_option_of_another_kind_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("quickstart", overrides)


def test_a_shared_policy_has_training_options_of_its_own() -> None:
    config = config_of("shared", num_steps=12, learning_rate=1e-3)
    for agent in ("memory_manager", "answer_agent"):
        assert config.agent_training(agent).num_steps == 12  # type: ignore[arg-type]
