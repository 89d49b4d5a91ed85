"""The pair: both agents with everything they were trained to work with. A run evaluates, registers and serves it.

On disk it is one folder:

    pair.json          settings (PairSettings)
    memory_manager/    weights and tokeniser, or a LoRA adapter · absent for a model behind an endpoint
    answer_agent/      the same
    shared/            in place of these two: the weights of a policy that plays both roles
    prompts/           the texts of the prompts; a loaded pair uses these, not those of the memr1 that loads it
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from memr1.agents.answer_agent import AnswerAgent
from memr1.agents.fact_extractor import FactExtractor, build_extractor
from memr1.agents.generation import Generator
from memr1.agents.generators import build_generator, is_adapter, model_location
from memr1.agents.memory_manager import ManagerPolicy, MemoryManager
from memr1.agents.prompting import read_template
from memr1.bank.embedding import MiniLmEmbedder
from memr1.config import AGENTS, AgentConfig, AgentName, AnswerAgentConfig, ExtractionConfig, RetrievalConfig, RunConfig
from memr1.data.stored import DatasetIdentity
from memr1.errors import AgentError, CheckpointMissing
from memr1.phases import SHARED
from memr1.records import Record, write_json

SETTINGS_NAME = "pair.json"


class PairSettings(Record):
    """What two sets of weights need to work as a pair."""

    memory_manager: AgentConfig
    answer_agent: AnswerAgentConfig
    retrieval: RetrievalConfig
    extraction: ExtractionConfig
    embedder: str
    dataset: DatasetIdentity | None = None  # what the pair was trained on
    shares_weights: bool = False  # one set of weights plays both roles

    def agent(self, name: AgentName) -> AgentConfig:
        """The section of one agent."""
        return self.memory_manager if name == "memory_manager" else self.answer_agent

    def folder(self, name: AgentName) -> str:
        """Where an agent's weights lie in the pair's folder."""
        return SHARED if self.shares_weights else name


@dataclass(frozen=True)
class AgentPair:
    """A pair that is loaded and ready."""

    manager: ManagerPolicy
    answer_agent: AnswerAgent
    extractor: FactExtractor
    settings: PairSettings


def pair_settings(config: RunConfig, dataset: DatasetIdentity | None = None) -> PairSettings:
    """The settings of a run's pair."""
    return PairSettings(
        memory_manager=config.memory_manager,
        answer_agent=config.answer_agent,
        retrieval=config.retrieval,
        extraction=config.extraction,
        embedder=MiniLmEmbedder.name,
        dataset=dataset,
        shares_weights=config.training.policies.kind == "shared",
    )


def build_pair(config: RunConfig, models: Mapping[AgentName, Path | None]) -> AgentPair:
    """A run's pair. `models` names trained weights or adapters; None or nothing is the configured warm start.

    Raises ConfigError, CheckpointMissing.
    """
    return _assemble(pair_settings(config), models, {})


def write_pair(folder: Path, settings: PairSettings, models: Mapping[AgentName, Path]) -> None:
    """Write a pair's folder in one rename; an existing one is replaced. `models`: see `build_pair`.

    Adapters of a model that lies on this machine are merged with it, so that the folder is whole: only an adapter
    of a hub model stays one. Raises CheckpointMissing for weights that are not there.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for agent, model in models.items():
        if not model.is_dir():
            raise CheckpointMissing(f"no weights of the {agent} in {model}: train it first")
        if not (partial / settings.folder(agent)).exists():
            _write_model(settings.agent(agent), agent, model, partial / settings.folder(agent))
    for name in _template_names(settings).values():
        path = partial / "prompts" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(read_template(name) + "\n", encoding="utf-8")
    write_json(partial / SETTINGS_NAME, settings.model_dump(mode="json"))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def load_pair(folder: Path) -> AgentPair:
    """Load what `write_pair` wrote. Raises AgentError for what is no pair, CheckpointMissing for missing weights."""
    settings = read_settings(folder)
    if settings.embedder != MiniLmEmbedder.name:
        raise AgentError(
            f"the pair in {folder} works with embeddings of {settings.embedder!r}, this memr1 has "
            f"{MiniLmEmbedder.name!r}: load it with the memr1 that wrote it"
        )
    trained = [agent for agent in AGENTS if settings.agent(agent).generator.kind == "transformers"]
    models = {agent: folder / settings.folder(agent) for agent in trained}
    for agent, model in models.items():
        if not model.is_dir():
            raise CheckpointMissing(f"the pair in {folder} lacks the weights of the {agent}: copy the whole folder")
    return _assemble(settings, models, _read_templates(folder, settings))


def read_settings(folder: Path) -> PairSettings:
    """The settings of a pair's folder. Raises AgentError."""
    path = folder / SETTINGS_NAME
    try:
        return PairSettings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise AgentError(f"{folder} holds no pair of agents ({path.name}: {error.strerror})") from error
    except ValidationError as error:
        raise AgentError(f"{path} was not written by this version of memr1: {error}") from error


def _assemble(
    settings: PairSettings, models: Mapping[AgentName, Path | None], templates: Mapping[AgentName, str]
) -> AgentPair:
    manager, answerer = settings.memory_manager, settings.answer_agent
    generators = _build_generators(settings, models)
    return AgentPair(
        manager=MemoryManager(
            generators["memory_manager"], manager.prompt, manager.max_new_tokens, templates.get("memory_manager")
        ),
        answer_agent=AnswerAgent(
            generators["answer_agent"], answerer.prompt, answerer.max_new_tokens, templates.get("answer_agent")
        ),
        extractor=build_extractor(settings.extraction),
        settings=settings,
    )


def _build_generators(settings: PairSettings, models: Mapping[AgentName, Path | None]) -> dict[AgentName, Generator]:
    """One per agent; weights that play both roles are loaded once."""
    first, second = AGENTS
    built = build_generator(settings.agent(first).generator, first, models.get(first))
    if settings.shares_weights and models.get(first) is not None and models.get(first) == models.get(second):
        return {first: built, second: built}
    return {first: built, second: build_generator(settings.agent(second).generator, second, models.get(second))}


def _write_model(config: AgentConfig, agent: AgentName, model: Path, folder: Path) -> None:
    base = model_location(config.generator, agent) if is_adapter(model) else model
    if base == model or not Path(base).is_dir():
        shutil.copytree(model, folder, ignore=shutil.ignore_patterns("training_args.bin"))
        return
    from memr1.agents.transformers_generator import merge_adapter

    merge_adapter(base, model, folder)


def _template_names(settings: PairSettings) -> dict[AgentName, str]:
    return {agent: f"{settings.agent(agent).prompt}_{agent}" for agent in AGENTS}


def _read_templates(folder: Path, settings: PairSettings) -> dict[AgentName, str]:
    try:
        return {
            agent: (folder / "prompts" / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")
            for agent, name in _template_names(settings).items()
        }
    except OSError as error:
        raise AgentError(f"the pair in {folder} lacks a prompt ({error}): copy the whole folder") from error
