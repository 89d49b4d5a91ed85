"""From a data section or a file to a Dataset: read, parse, split, and refuse what cannot be one."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from memr1.config import DataConfig, LocomoData, SyntheticData
from memr1.data.conversation import Dataset, Splits
from memr1.data.locomo import LICENCE_NOTICE, is_published, paper_splits, parse_locomo
from memr1.data.longmemeval import is_longmemeval, parse_longmemeval
from memr1.data.source import Contents, SourceFile, parse_json, read_source
from memr1.data.splits import refuse_leakage, require_questions, score_all, split_conversations
from memr1.data.synthetic import SyntheticOptions, build_synthetic_dataset
from memr1.data.transcript import parse_transcript
from memr1.errors import DatasetFormatError

logger = logging.getLogger(__name__)


def load_dataset(config: DataConfig, seed: int) -> Dataset:
    """The dataset a run is about, split for training. `seed` builds and splits; LoCoMo's own split is fixed.

    Raises DatasetFormatError (what, where, what to do) for a file that cannot be read as its kind.
    """
    if isinstance(config, SyntheticData):
        return build_synthetic_dataset(SyntheticOptions.model_validate(config.model_dump(exclude={"kind"})), seed)
    source = read_source(config.path)
    locomo = isinstance(config, LocomoData)
    contents = _checked(source, parse_locomo(source) if locomo else parse_transcript(source))
    splits = (paper_splits(contents) if locomo else None) or split_conversations(
        contents.conversations, contents.questions, seed
    )
    return _build_dataset("locomo" if locomo else _transcript_name(source), source, contents, splits)


def load_dataset_file(path: Path) -> Dataset:
    """A file of any known format, recognised by its content, with every conversation held out (split "test")."""
    source = read_source(path)
    name, contents = _parse_any(source)
    contents = _checked(source, contents)
    return _build_dataset(name, source, contents, score_all(contents.conversations))


def _parse_any(source: SourceFile) -> tuple[str, Contents]:
    """LoCoMo and LongMemEval are .json lists of objects with telling keys; everything else is a transcript."""
    if source.path.suffix == ".json":
        value = parse_json(source.text, str(source.path))
        if _is_locomo(value):
            return "locomo", parse_locomo(source)
        if is_longmemeval(value):
            return "longmemeval", parse_longmemeval(source)
    return _transcript_name(source), parse_transcript(source)


def _is_locomo(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "sample_id" in value[0]


def _transcript_name(source: SourceFile) -> str:
    return f"transcript/{source.path.stem}"


def _checked(source: SourceFile, contents: Contents) -> Contents:
    """Refuse a file whose conversations cannot be told apart, or that asks nothing."""
    ids = Counter(item.id for item in contents.conversations)
    repeated = [name for name, count in ids.items() if count > 1]
    if repeated:
        raise DatasetFormatError(f"{source.path}: conversation id {repeated[0]!r} stands more than once: rename one.")
    if not contents.questions:
        raise DatasetFormatError(
            f"{source.path} has no questions with answers, so nothing can be trained or scored: add some."
        )
    return contents


def _build_dataset(name: str, source: SourceFile, contents: Contents, splits: Splits) -> Dataset:
    refuse_leakage(splits, contents.conversations)
    require_questions(splits, contents.questions)
    for (kind, reason), count in Counter((row.kind, row.reason) for row in contents.left_out).items():
        logger.info("%s: left out %d %s row(s): %s", source.path.name, count, kind, reason)
    return Dataset(
        name=name,
        sha256=source.sha256,
        licence_notice=LICENCE_NOTICE if name == "locomo" and is_published(contents) else "",
        conversations=contents.conversations,
        questions=contents.questions,
        splits=splits,
        left_out=contents.left_out,
    )
