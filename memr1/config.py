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

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from memr1.errors import ConfigError
from memr1.records import Record

AgentName = Literal["memory_manager", "answer_agent"]
AGENTS: tuple[AgentName, ...] = ("memory_manager", "answer_agent")
SystemName = Literal["warm_start", "trained", "always_add"]


def kind_unless_given(default: str, key: str = "kind") -> Discriminator:
    """Tells the variants of a section by their `kind` (or `key`); a section without one is of the default kind."""

    def kind_of(value: Any) -> str:
        kind = value.get(key, default) if isinstance(value, dict) else getattr(value, key, default)
        return str(kind)

    return Discriminator(kind_of)


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


BankConfig = Annotated[
    Annotated[InMemoryBank, Tag("in_memory")] | Annotated[LanceBank, Tag("lancedb")], kind_unless_given("lancedb")
]


class TransformersModel(Record):
    """A causal language model in this process."""

    kind: Literal["transformers"] = "transformers"
    model: str = Field("tiny", description='"tiny" (shipped with memr1), a local folder, or a Hugging Face hub id.')
    batch_size: int = Field(64, ge=1, description="Prompts decoded together.")


class EndpointModel(Record):
    """An OpenAI-compatible server at $MEMR1_ENDPOINT_URL, with $MEMR1_ENDPOINT_KEY. Cannot be trained."""

    kind: Literal["endpoint"]
    model: str = Field(description="The model name the server knows.")
    timeout_seconds: float = Field(60.0, gt=0, description="Limit of one request.")
    num_retries: int = Field(4, ge=0, description="Repeats after a refused or broken request, with growing pauses.")
    concurrency: int = Field(8, ge=1, description="Requests under way at once.")


class ScriptedModel(Record):
    """Always the same reply: for trying a pipeline without any model."""

    kind: Literal["scripted"]
    reply: str = Field(description="The text returned for every prompt.")


GeneratorConfig = Annotated[
    Annotated[TransformersModel, Tag("transformers")]
    | Annotated[EndpointModel, Tag("endpoint")]
    | Annotated[ScriptedModel, Tag("scripted")],
    kind_unless_given("transformers"),
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


class LoraConfig(Record):
    """Train low-rank adapters instead of all weights."""

    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(32, ge=1, description="Scale of the adapters.")


class AgentTraining(Record):
    """What differs between the training of the two agents."""

    num_steps: int = Field(30, ge=0, description="Optimiser steps; 0 keeps the warm start.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate; decays linearly to 0.")
    kl_coefficient: float = Field(0.03, ge=0, description="Weight of the KL penalty against the starting policy.")


class GuardConfig(Record):
    """When a training is stopped for its own good."""

    max_kl: float = Field(2.0, gt=0, description="Largest divergence from the starting policy, nats per token.")
    max_parse_failures: float = Field(0.95, gt=0, description="Largest share of completions that cannot be read …")
    patience: int = Field(5, ge=1, description="… and how many steps in a row it, or a constant policy, is tolerated.")


class TrainingOptions(Record):
    """What every algorithm needs to know."""

    reward: Literal["exact_match", "token_f1"] = Field("exact_match", description="How an answer is scored.")
    prompts_per_step: int = Field(32, ge=1, description="Different training examples in one optimiser step.")
    completions_per_prompt: int = Field(8, ge=2, description="Size of a rollout group.")
    micro_batch: int = Field(128, ge=1, description="Completions per process in one forward and backward pass.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of the rollouts.")
    max_examples: int = Field(2000, ge=1, description="Training examples kept per agent, chosen by the run's seed.")
    retention_questions: int = Field(
        4, ge=0, description="Questions about other facts of the bank scored with a turn's own (Manager's reward)."
    )
    checkpoint_every: int = Field(10, ge=1, description="Steps between checkpoints.")
    num_processes: int = Field(2, ge=1, description="Training processes: one per GPU, or CPU cores to use.")
    deepspeed: Literal["zero1", "zero2", "zero3", "zero3_offload"] = Field(
        "zero2", description="File of deepspeed_configs/ that shards the training."
    )
    lora: LoraConfig | None = Field(None, description="Low-rank adapters; all weights are trained without it.")
    guards: GuardConfig = GuardConfig()
    memory_manager: AgentTraining = AgentTraining()
    answer_agent: AgentTraining = AgentTraining()

    @property
    def completions_per_step(self) -> int:
        """Rollouts of one optimiser step, over all processes."""
        return self.prompts_per_step * self.completions_per_prompt

    @property
    def num_accumulation_steps(self) -> int:
        """Forward and backward passes of one process in one optimiser step."""
        return -(-self.completions_per_step // (self.num_processes * self.micro_batch))

    @model_validator(mode="after")
    def _divides_evenly(self) -> "TrainingOptions":
        passes = self.num_processes * self.num_accumulation_steps
        if self.completions_per_step % passes:
            raise ValueError(
                f"prompts_per_step x completions_per_prompt = {self.completions_per_step} does not divide into "
                f"{passes} equal batches ({self.num_processes} processes, micro_batch {self.micro_batch})"
            )
        return self


class GrpoTraining(TrainingOptions):
    """Group Relative Policy Optimization (TRL) under DeepSpeed: completions of one prompt are each other's baseline."""

    algorithm: Literal["grpo"] = "grpo"
    loss: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "gspo"] = Field(
        "grpo", description="The paper's loss, or a named variant of it (TRL's names; gspo: one ratio per sequence)."
    )


class PpoTraining(TrainingOptions):
    """Proximal Policy Optimization under DeepSpeed: a value head on the policy is the baseline, token by token."""

    algorithm: Literal["ppo"]
    num_epochs: int = Field(2, ge=1, description="Optimiser passes over the rollouts of one step.")
    clip_range: float = Field(0.2, gt=0, description="How far a pass may move a token's probability ratio, or a value.")
    critic_learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate of the value head.")
    value_coefficient: float = Field(0.5, ge=0, description="Weight of the value loss.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Generalized advantage estimation: 0 trusts the critic.")


TrainingConfig = Annotated[
    Annotated[GrpoTraining, Tag("grpo")] | Annotated[PpoTraining, Tag("ppo")], kind_unless_given("grpo", "algorithm")
]


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
    memory_manager: AgentConfig = AgentConfig()
    answer_agent: AgentConfig = AgentConfig()
    training: TrainingConfig = GrpoTraining()
    evaluation: EvaluationConfig = EvaluationConfig()
    registry: RegistryConfig = RegistryConfig()
    storage: StorageConfig = StorageConfig()

    def agent(self, name: AgentName) -> AgentConfig:
        """The section of one agent."""
        return self.memory_manager if name == "memory_manager" else self.answer_agent

    def agent_training(self, name: AgentName) -> AgentTraining:
        """The training section of one agent."""
        return self.training.memory_manager if name == "memory_manager" else self.training.answer_agent


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
        name = _option_name(problem["loc"], tree)
        if problem["type"] == "extra_forbidden":
            yield f"unknown option {name!r} (see `memr1 config` for every option)"
        else:
            yield f"{name}: {problem['msg']} (got {json.dumps(problem['input'], default=str)[:80]})"


def _option_name(location: Sequence[str | int], tree: Mapping[str, Any]) -> str:
    """The option as a user writes it: pydantic also names the variant, which is no part of it."""
    parts: list[str] = []
    node: Any = tree
    for part in location:
        known = isinstance(node, Mapping) and part in node
        if known or part == location[-1]:
            parts.append(str(part))
            node = node[part] if known else None
    return ".".join(parts)
