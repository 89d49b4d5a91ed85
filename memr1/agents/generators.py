"""From a configuration to a generator. Heavy libraries are imported by the kind that needs them."""

import os
from pathlib import Path

from memr1.agents.generation import Generator, ScriptedGenerator
from memr1.config import AgentName
from memr1.errors import ConfigError
from memr1.model_options import EndpointModel, GeneratorConfig, ScriptedModel

ENDPOINT_URL, ENDPOINT_KEY = "MEMR1_ENDPOINT_URL", "MEMR1_ENDPOINT_KEY"
TINY = "tiny"


def build_generator(config: GeneratorConfig, agent: AgentName | None, model: Path | None = None) -> Generator:
    """The configured generator. `agent` says which of the shipped tiny models is meant (None: neither).

    `model` takes the configured weights' place: a folder of full weights, or of a LoRA adapter for them.
    Raises ConfigError, CheckpointMissing for a folder without weights.
    """
    if isinstance(config, ScriptedModel):
        return ScriptedGenerator(lambda _: config.reply)
    if isinstance(config, EndpointModel):
        return _build_endpoint(config)
    from memr1.agents.transformers_generator import TransformersGenerator

    if model is not None and not is_adapter(model):
        return TransformersGenerator(model, batch_size=config.batch_size)
    return TransformersGenerator(model_location(config, agent), batch_size=config.batch_size, adapter=model)


def model_location(config: GeneratorConfig, agent: AgentName | None) -> str | Path:
    """The folder or hub id of a model in this process, "tiny" resolved. Raises ConfigError for other kinds."""
    if config.kind != "transformers":
        raise ConfigError(f'a generator of kind {config.kind!r} has no weights to train: use kind = "transformers"')
    if config.model != TINY:
        return config.model
    if agent is None:
        raise ConfigError(f'the model "{TINY}" knows the two agents\' tasks only: name another model')
    from memr1.tiny.weights import agent_folder

    return agent_folder(agent)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a LoRA adapter instead of whole weights."""
    return (folder / "adapter_config.json").is_file()


def _build_endpoint(config: EndpointModel) -> Generator:
    from memr1.agents.endpoint_generator import EndpointGenerator

    url = os.environ.get(ENDPOINT_URL, "")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"${ENDPOINT_URL} is {url!r}: set it to the server's address, such as http://localhost:8000/v1"
        )
    return EndpointGenerator(
        config.model,
        url=url,
        key=os.environ.get(ENDPOINT_KEY, ""),
        timeout_seconds=config.timeout_seconds,
        num_retries=config.num_retries,
        concurrency=config.concurrency,
    )
