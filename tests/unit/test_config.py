"""Profiles, files and overrides, and what a wrong option is told."""

from pathlib import Path

import pytest

from memr1.config import LocomoData, TranscriptData, load_config
from memr1.errors import ConfigError
from memr1.model_options import EndpointModel


def test_overrides_win_over_the_profile() -> None:
    config = load_config("quickstart", ["seed=11", "training.memory_manager.num_steps=3", "training.reward=token_f1"])
    assert (config.seed, config.training.memory_manager.num_steps, config.training.reward) == (11, 3, "token_f1")


def test_a_path_needs_no_quotes() -> None:
    config = load_config("locomo-tiny", ["data.path=/data/locomo10.json"])
    assert config.data == LocomoData(kind="locomo", path=Path("/data/locomo10.json"))


@pytest.mark.parametrize("order", [1, -1])
def test_choosing_another_variant_drops_the_options_of_the_profiles(order: int) -> None:
    overrides = ["data.kind=transcript", "data.path=mine.jsonl"][::order]
    assert load_config("quickstart", overrides).data == TranscriptData(kind="transcript", path=Path("mine.jsonl"))


def test_naming_the_variant_that_is_chosen_already_drops_nothing() -> None:
    config = load_config("quickstart", ["data.kind=synthetic"])
    assert config == load_config("quickstart")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", "unknown option 'sed'"),
        ("data.levl=full", "unknown option 'data.levl'"),
        ("data.path=x", "unknown option 'data.path'"),
        ("data.num_test=none", "data.num_test: Input should be a valid integer"),
        ("training.lora.rank=0", r"training.lora.rank: .*greater than or equal to 1 \(got 0\)"),
        ("seed.x=1", "seed: Input should be a valid integer"),
        ("storage.uri=http://x", "storage.uri: "),
        ("training.credit.num_rereads=4", "unknown option 'training.credit.num_rereads'"),
        (
            "training={credit = {kind = 'local_global'}, extra_rewards = {format = 0.1}}",
            r"training: .*scores whole sessions, extra_rewards \(format\)",
        ),
        ("training.reward=judge", 'training: .*reward = "judge" needs one: set training.judge.kind=endpoint and'),
        ('training.judge={kind = "endpoint", model = "m"}', 'training: .*reward = "exact_match" asks no judge'),
    ],
)
def test_a_wrong_option_is_named_as_it_was_written(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"quickstart: {message}"):
        load_config("quickstart", [override])


def test_credit_by_trajectories_is_configured_stage_by_stage() -> None:
    options = ["training.credit.curriculum=[[2, 5], [8, 1]]", "training.credit.kind=local_global"]
    training = load_config("quickstart", options).training
    assert training.credit.kind == "local_global"
    assert [(stage.num_sessions, stage.num_steps) for stage in training.credit.curriculum] == [(2, 5), (8, 1)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.algorithm=ppo", 'training.credit: .*PPO has a critic instead: set training.algorithm = "grpo"'),
        ("training.loss=dapo", 'training.*loss = "dapo" token by token: set loss to grpo or dr_grpo or gspo'),
        (
            "training.rollout.kind=vllm_colocate",
            'training.*not by rollout.kind = "vllm_colocate": set rollout.kind',
        ),
        ("training.skip_zero_variance=true", "training.*keeps the KL penalty of groups without variance"),
        ("training.credit.curriculum=[[0, 5]]", "training.credit.curriculum.0.0: .*greater than 0"),
        ("training.credit.curriculum=[]", "training.credit.curriculum: .*at least 1 item"),
        ("training.credit.num_trajectories=1", "training.credit.num_trajectories: .*greater than or equal to 2"),
    ],
)
def test_credit_by_trajectories_refuses_what_it_cannot_be_combined_with(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("quickstart", ["training.credit.kind=local_global", override])


def test_a_toml_file_is_named_after_itself_and_its_errors_after_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("seed = 3\n")
    assert load_config(str(path)).profile == "mine"
    path.write_text("seed = \n")
    with pytest.raises(ConfigError, match=r"mine\.toml is not valid TOML"):
        load_config(str(path))


def test_a_judge_is_an_endpoint_of_its_own_section() -> None:
    overrides = ["training.reward=judge", "training.judge.kind=endpoint", "training.judge.model=m"]
    assert load_config("quickstart", overrides).training.judge == EndpointModel(kind="endpoint", model="m")
