"""Where rollouts are sampled: the words TRL has for `training.rollout`, and what must be there before training starts.

Imports no torch: the flow asks before it starts a process.
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import Any

from memr1.environment import has_gpu
from memr1.errors import ConfigError
from memr1.machine import find_version
from memr1.training_options import RolloutConfig, TrainingOptions

SERVER_URL = "MEMR1_VLLM_URL"
VLLM_VERSIONS = ((0, 22), (0, 31))  # first and last minor version that TRL 1.16 takes
INSTALL = "install it where the GPUs are: uv pip install -e '.[vllm]' (without constraints.txt: vLLM has its own pins)"


def check_sampler(rollout: RolloutConfig, environ: MutableMapping[str, str] = os.environ) -> None:
    """Raises ConfigError when rollouts cannot be sampled on this machine, and says what is missing."""
    if rollout.kind == "in_process":
        return
    wanted = f'training.rollout.kind = "{rollout.kind}"'
    otherwise = 'or set training.rollout.kind = "in_process"'
    version = find_version("vllm")
    if version is None:
        raise ConfigError(f"{wanted} needs vLLM, which is not installed: {INSTALL}, {otherwise}")
    if not VLLM_VERSIONS[0] <= tuple(map(int, version.split(".")[:2])) <= VLLM_VERSIONS[1]:
        first, last = (".".join(map(str, part)) for part in VLLM_VERSIONS)
        raise ConfigError(f"{wanted} needs vLLM {first} to {last}, not {version}: {INSTALL}, {otherwise}")
    if not has_gpu(environ):
        raise ConfigError(
            f"{wanted} needs an NVIDIA GPU, and this machine shows none: train on one that has, {otherwise}"
        )
    if rollout.kind == "vllm_server" and not environ.get(SERVER_URL, "").startswith(("http://", "https://")):
        raise ConfigError(
            f"{wanted}: ${SERVER_URL} is {environ.get(SERVER_URL, '')!r}: set it to the server's address, such as "
            f"http://gpu2:8000, {otherwise}"
        )


def sampler_arguments(
    training: TrainingOptions, max_new_tokens: int, environ: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """The part of GRPOConfig that says where completions come from; nothing for those of the process itself."""
    rollout = training.rollout
    if rollout.kind == "in_process":
        return {}
    if rollout.kind == "vllm_server":
        return {
            "use_vllm": True,
            "vllm_mode": "server",
            "vllm_server_base_url": environ[SERVER_URL],
            "vllm_server_timeout": rollout.timeout_seconds,
        }
    prompt = training.max_prompt_tokens
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": rollout.gpu_memory_utilization,
        "vllm_tensor_parallel_size": rollout.tensor_parallel,
        "vllm_enable_sleep_mode": rollout.sleep,
        "vllm_max_model_length": None if prompt is None else prompt + max_new_tokens,
    }
