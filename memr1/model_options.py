"""The `generator` sections of a run's configuration (memr1.config): where a language model runs."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from memr1.records import Record, kind_unless_given


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
