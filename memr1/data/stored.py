"""The dataset as a run keeps it: 1_data/{conversations,questions}.jsonl, splits.json and dataset.json."""

from pathlib import Path

from pydantic import ValidationError

from memr1.data.conversation import Conversation, Dataset, Question, Splits
from memr1.errors import DatasetFormatError
from memr1.records import AnyRecord, Record, read_jsonl, write_json, write_jsonl
from memr1.run_dir import RunDir


class DatasetIdentity(Record):
    """1_data/dataset.json: what the report and the model card say about the data."""

    name: str
    sha256: str
    licence_notice: str
    num_conversations: int
    num_turns: int
    num_questions: int


def write_dataset(run: RunDir, dataset: Dataset) -> DatasetIdentity:
    """Write the four files, each atomically; rejected.jsonl is the validation's."""
    write_jsonl(run.conversations, dataset.conversations)
    write_jsonl(run.questions, dataset.questions)
    write_json(run.splits, dataset.splits.model_dump(mode="json"))
    identity = DatasetIdentity(
        name=dataset.name,
        sha256=dataset.sha256,
        licence_notice=dataset.licence_notice,
        num_conversations=len(dataset.conversations),
        num_turns=sum(len(item.turns()) for item in dataset.conversations),
        num_questions=len(dataset.questions),
    )
    write_json(run.dataset, identity.model_dump(mode="json"))
    return identity


def read_dataset(run: RunDir) -> Dataset:
    """Read what `write_dataset` wrote. Raises DatasetFormatError with the file when it is missing or damaged."""
    identity = read_identity(run)
    return Dataset(
        name=identity.name,
        sha256=identity.sha256,
        licence_notice=identity.licence_notice,
        conversations=tuple(read_jsonl(run.conversations, Conversation)),
        questions=tuple(read_jsonl(run.questions, Question)),
        splits=_read_document(run.splits, Splits),
    )


def read_identity(run: RunDir) -> DatasetIdentity:
    """Name, digest, licence and counts alone: cheap."""
    return _read_document(run.dataset, DatasetIdentity)


def _read_document(path: Path, kind: type[AnyRecord]) -> AnyRecord:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DatasetFormatError(f"cannot read {path}: {error}. Run the validate stage again.") from error
