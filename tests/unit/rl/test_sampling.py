"""Rollouts by vLLM: what TRL is told, and what is missing here said before anything starts."""

from importlib import metadata
from pathlib import Path

import pytest
import torch
from trl import GRPOConfig

from memr1.config import load_config
from memr1.errors import ConfigError
from memr1.rl.launch import launch_training
from memr1.rl.ppo import without_head
from memr1.rl.sampling import check_sampler, sampler_arguments
from memr1.run_dir import RunDir
from memr1.training_options import TrainingConfig, VllmColocatedRollout, VllmServerRollout


def training(*overrides: str) -> TrainingConfig:
    return load_config("quickstart", overrides).training


def pretend_version(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """An installed vLLM, as far as its metadata goes."""
    stock = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == "vllm" else stock(name))


def test_training_that_samples_by_itself_tells_trl_nothing() -> None:
    assert sampler_arguments(training(), 64) == {}
    check_sampler(training().rollout)


def test_trl_takes_what_it_is_told_of_vllm_on_the_training_gpus(tmp_path: Path) -> None:
    options = ("kind=vllm_colocate", "gpu_memory_utilization=0.4", "tensor_parallel=2", "sleep=true")
    chosen = training(*(f"training.rollout.{option}" for option in options), "training.max_prompt_tokens=4096")
    config = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **sampler_arguments(chosen, 2048))
    assert (config.use_vllm, config.vllm_mode, config.vllm_gpu_memory_utilization) == (True, "colocate", 0.4)
    assert (config.vllm_tensor_parallel_size, config.vllm_enable_sleep_mode) == (2, True)
    assert config.vllm_max_model_length == 6144


def test_trl_takes_what_it_is_told_of_a_vllm_server(tmp_path: Path) -> None:
    chosen = training("training.rollout.kind=vllm_server", "training.rollout.timeout_seconds=30")
    arguments = sampler_arguments(chosen, 64, {"MEMR1_VLLM_URL": "http://gpu2:8000"})
    config = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **arguments)
    assert (config.vllm_mode, config.vllm_server_base_url) == ("server", "http://gpu2:8000")
    assert config.vllm_server_timeout == 30


def test_a_missing_vllm_stops_training_before_a_process_starts(tmp_path: Path) -> None:
    config = load_config("quickstart", ["training.rollout.kind=vllm_colocate"])
    with pytest.raises(ConfigError, match=r"needs vLLM, which is not installed: install it .*\[vllm\]"):
        launch_training(RunDir(tmp_path), config, "memory_manager", tmp_path / "train.log")
    assert list(tmp_path.iterdir()) == []


def test_a_vllm_that_trl_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_version(monkeypatch, "0.32.1")
    with pytest.raises(ConfigError, match=r"needs vLLM 0\.22 to 0\.31, not 0\.32\.1"):
        check_sampler(VllmColocatedRollout(kind="vllm_colocate"))


def test_vllm_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_version(monkeypatch, "0.30.0")
    with pytest.raises(ConfigError, match="needs an NVIDIA GPU"):
        check_sampler(VllmServerRollout(kind="vllm_server"), {"CUDA_VISIBLE_DEVICES": ""})


def test_an_option_of_one_sampler_cannot_be_set_on_another() -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'training\.rollout\.sleep'"):
        training("training.rollout.kind=vllm_server", "training.rollout.sleep=true")


def test_gpus_that_share_a_samplers_weights_are_on_one_machine() -> None:
    with pytest.raises(ConfigError, match="tensor_parallel = 2 does not divide 1 GPUs of a node"):
        training("training.rollout.kind=vllm_colocate", "training.rollout.tensor_parallel=2", "training.num_nodes=2")


def test_processes_spread_evenly_over_machines() -> None:
    with pytest.raises(ConfigError, match="num_processes = 2 do not spread evenly over 3 nodes"):
        training("training.num_nodes=3")


def test_vllm_is_not_sent_the_critic() -> None:
    policy = torch.nn.ModuleDict({"layer": torch.nn.Linear(1, 1), "value_head": torch.nn.Linear(1, 1)})
    sent = [name for name, _ in without_head(policy.named_parameters)()]
    assert sent == ["layer.weight", "layer.bias"]
