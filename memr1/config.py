"""Everything a run can be told, in one tree: defaults < profile or TOML file < `--set section.field=value`.

Variants are tagged unions (`data.kind`, `bank.kind`, `….generator.kind`), so that an option of one variant cannot
be set on another. Addresses and secrets are not here: they come from the environment (see .env.example).
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, ValidationError, model_validator

from memr1.errors import ConfigError
from memr1.model_options import GeneratorConfig, TransformersModel
from memr1.records import Record, kind_unless_given
from memr1.training_options import AgentTraining, GrpoTraining, TrainingConfig

AgentName = Literal["memory_manager", "answer_agent"]
AGENTS: tuple[AgentName, ...] = ("memory_manager", "answer_agent")
SystemName = Literal["warm_start", "trained", "always_add"]


class SyntheticData(Record):
    """A generated world of conversations; needs no file."""

    kind: Literal["synthetic"] = "synthetic"
    level: Literal["easy", "full"] = Field("easy", description="How hard the world is; the tiny model starts on easy.")
    num_train: int = Field(120, ge=1, description="Conversations to train on.")
    num_validation: int = Field(10, ge=1, description="Conversations that choose between checkpoints.")
    num_test: int = Field(60, ge=1, description="Conversations that are only ever scored.")


class LocomoData(Record):
    """LoCoMo's locomo10.json, split as in the paper (conv-26 / conv-30 / the other eight)."""

    kind: Literal["locomo"]
    path: Path = Field(description="Path of locomo10.json.")


class TranscriptData(Record):
    """Your own conversations, in the JSON Lines format of docs/data.md."""

    kind: Literal["transcript"]
    path: Path = Field(description="Path of the .jsonl file.")


DataConfig = Annotated[
    Annotated[SyntheticData, Tag("synthetic")]
    | Annotated[LocomoData, Tag("locomo")]
    | Annotated[TranscriptData, Tag("transcript")],
    kind_unless_given("synthetic"),
]


class RetrievalConfig(Record):
    """How many memory entries an agent is shown."""

    entries_per_turn: int = Field(5, ge=1, description="Entries of the turn's speaker shown to the Memory Manager.")
    entries_per_speaker: int = Field(30, ge=1, description="Entries of each speaker shown to the Answer Agent.")


class InMemoryBank(Record):
    """Entries live in the process; only the journal is on disk."""

    kind: Literal["in_memory"]


class LanceBank(Record):
    """Entries live in an embedded LanceDB table in the run directory."""

    kind: Literal["lancedb"] = "lancedb"


class WeaviateBank(Record):
    """Entries live in the Weaviate server at $WEAVIATE_URL (see .env.example), one tenant per scope."""

    kind: Literal["weaviate"]
    collection: str = Field(
        "MemoryEntry", pattern=r"^[A-Z][_0-9A-Za-z]*$", description="The collection; made when it is not there."
    )
    replication_factor: int = Field(1, ge=1, description="Nodes that keep each tenant, when the collection is made.")
    consistency: Literal["ONE", "QUORUM", "ALL"] = Field("QUORUM", description="Nodes that confirm a write or read.")
    timeout_seconds: float = Field(10.0, gt=0, description="Limit of one call, the client's own repeats included.")
    wait_seconds: float = Field(27.0, ge=0, description="How long a server that does not answer is waited for.")


BankConfig = Annotated[
    Annotated[InMemoryBank, Tag("in_memory")]
    | Annotated[LanceBank, Tag("lancedb")]
    | Annotated[WeaviateBank, Tag("weaviate")],
    kind_unless_given("lancedb"),
]


class LocalBuild(Record):
    """The training banks are built by this machine."""

    kind: Literal["local"] = "local"


class RayBuild(Record):
    """They are built by the Ray cluster at $RAY_ADDRESS, or by Ray on this machine; needs the extra [ray]."""

    kind: Literal["ray"]
    conversations_per_part: int = Field(64, ge=1, description="Conversations that one task reads side by side.")
    gpus_per_part: float = Field(0.0, ge=0, description="GPUs that Ray keeps for a task; without any it sees none.")


BuildConfig = Annotated[
    Annotated[LocalBuild, Tag("local")] | Annotated[RayBuild, Tag("ray")], kind_unless_given("local")
]


class ExtractionConfig(Record):
    """Where a turn's facts come from."""

    kind: Literal["turn", "observations", "llm"] = Field(
        "turn", description="The turn itself, the dataset's own observations, or a language model's reading of it."
    )
    generator: GeneratorConfig | None = Field(None, description="The model that extracts facts when kind is llm.")
    max_new_tokens: int = Field(256, ge=1, description="Limit of one extraction.")


class AgentConfig(Record):
    """One agent: its model, its prompt, the limit of its output."""

    generator: GeneratorConfig = TransformersModel()
    prompt: Literal["compact", "paper"] = Field("compact", description="Prompt form; see memr1/agents/prompts.")
    max_new_tokens: int = Field(64, ge=1, description="Limit of one completion.")


class AnswerAgentConfig(AgentConfig):
    """The Answer Agent, which may be asked to answer without distillation."""

    prompt: Literal["compact", "paper", "compact_direct", "paper_direct"] = Field(  # type: ignore[assignment]
        "compact", description="Prompt form; the direct ones ask for the answer alone, without distillation."
    )


class EvaluationConfig(Record):
    """What the trained pair is compared with on the held-out conversations."""

    systems: tuple[SystemName, ...] = Field(
        ("warm_start", "trained", "always_add"), description="Systems in the report, in this order."
    )


class RegistryConfig(Record):
    """Where a trained pair is registered. The MLflow server is $MLFLOW_TRACKING_URI (default: sqlite)."""

    model_name: str = Field("memr1", description="Name of the registered model that holds the pair.")


class StorageConfig(Record):
    """Where a copy of the run directory is kept."""

    uri: str = Field("", pattern=r"^(s3://[^/]+(/.*)?)?$", description='"s3://bucket/prefix", or empty for none.')


class RunConfig(Record):
    """One run, completely."""

    profile: str = Field("custom", description="Name of the profile this configuration came from.")
    seed: int = Field(7, description="Seed of data, sampling and training.")
    data: DataConfig = SyntheticData()
    extraction: ExtractionConfig = ExtractionConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    bank: BankConfig = LanceBank()
    build: BuildConfig = LocalBuild()
    memory_manager: AgentConfig = AgentConfig()
    answer_agent: AnswerAgentConfig = AnswerAgentConfig()
    training: TrainingConfig = GrpoTraining()
    evaluation: EvaluationConfig = EvaluationConfig()
    registry: RegistryConfig = RegistryConfig()
    storage: StorageConfig = StorageConfig()

    def agent(self, name: AgentName) -> AgentConfig:
        """The section of one agent."""
        return self.memory_manager if name == "memory_manager" else self.answer_agent

    def agent_training(self, name: AgentName) -> AgentTraining:
        """The training section of one agent, or of the policy that plays both."""
        if self.training.policies.kind == "shared":
            return self.training.policies
        return self.training.memory_manager if name == "memory_manager" else self.training.answer_agent

    @model_validator(mode="after")
    def _shares_one_model(self) -> "RunConfig":
        generators = {name: self.agent(name).generator for name in AGENTS}
        models = {item.model if item.kind == "transformers" else None for item in generators.values()}
        if self.training.policies.kind == "shared" and (len(models) > 1 or None in models):
            told = [
                f"{name}.generator is {item.model_dump(include={'kind', 'model'})}" for name, item in generators.items()
            ]
            raise ValueError(
                f'training.policies.kind = "shared" trains one model for both agents, but {" and ".join(told)}: '
                'name the same model in both, of kind "transformers"'
            )
        return self


def profile_names() -> list[str]:
    """The profiles shipped with memr1."""
    folder = resources.files("memr1").joinpath("profiles")
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_config(source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Resolve a profile name or a TOML file, then `section.field=value` overrides. Raises ConfigError."""
    tree = _read_source(source)
    for override in sorted(overrides, key=_chooses_no_variant):  # a variant first, then its options
        _apply_override(tree, override)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, source, tree)) from error


def read_resolved_config(path: Path) -> RunConfig:
    """Read the `config.json` that a run directory keeps."""
    try:
        return RunConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{path} is not a resolved configuration: {error}") from error


def _read_source(source: str) -> dict[str, Any]:
    if source.endswith(".toml"):
        path = Path(source)
        name, text = path.stem, _read_file(path)
    elif source in profile_names():
        name = source
        text = resources.files("memr1").joinpath(f"profiles/{source}.toml").read_text(encoding="utf-8")
    else:
        raise ConfigError(f"unknown profile {source!r}: use one of {', '.join(profile_names())}, or a .toml file")
    try:
        return {"profile": name, **tomllib.loads(text)}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not valid TOML: {error}") from error


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r}: write section.field=value")
    *sections, field = key.strip().split(".")
    node: Any = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override!r}: {section} is a value, not a section")
    value = _parse_value(text.strip())
    if field == "kind" and node.get("kind", value) != value:
        node.clear()  # the profile's options of the variant that is no longer chosen
    node[field] = value


def _chooses_no_variant(override: str) -> bool:
    return not override.partition("=")[0].strip().endswith(".kind")


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word or a path: spare the user the quotes


def _explain(error: ValidationError, source: str, tree: Mapping[str, Any]) -> str:
    return "\n".join(f"{source}: {line}" for line in _problems(error, tree))


def _problems(error: ValidationError, tree: Mapping[str, Any]) -> Iterator[str]:
    for problem in error.errors():
        # What a whole section is told ends in its variant, which is not an option.
        name = _option_name(problem["loc"], tree, ends_in_option=problem["type"] != "value_error")
        if problem["type"] == "extra_forbidden":
            yield f"unknown option {name!r} (see `memr1 config` for every option)"
        elif not name:  # of the configuration as a whole, which is too long to be shown
            yield problem["msg"].removeprefix("Value error, ")
        else:
            yield f"{name}: {problem['msg']} (got {json.dumps(problem['input'], default=str)[:80]})"


def _option_name(location: Sequence[str | int], tree: Mapping[str, Any], ends_in_option: bool) -> str:
    """The option as a user writes it: pydantic also names the variant, which is no part of it."""
    parts: list[str] = []
    node: Any = tree
    for part in location:
        known = isinstance(node, Mapping) and part in node
        if known or (ends_in_option and part == location[-1]):
            parts.append(str(part))
            node = node[part] if known else None
    return ".".join(parts)
