"""Immutable records and their JSON Lines files: what one stage writes and the next one reads."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationError

from memr1.errors import DatasetFormatError


class Record(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def kind_unless_given(default: str, key: str = "kind") -> Discriminator:
    """Tells the variants of a record by their `kind` (or `key`); a value without one is of the default kind."""

    def kind_of(value: Any) -> str:
        kind = value.get(key, default) if isinstance(value, dict) else getattr(value, key, default)
        return str(kind)

    return Discriminator(kind_of)


AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def read_jsonl(path: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """Yield one `kind` per line of `path`; raise DatasetFormatError with file and line number otherwise."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _parse_line(line, kind, f"{path}:{number}")
    except UnicodeDecodeError as error:
        raise DatasetFormatError(f"{path} is not UTF-8 ({error}). Re-save it as UTF-8.") from error
    except OSError as error:
        raise DatasetFormatError(f"cannot read {path}: {error.strerror}") from error


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write the records atomically (a reader sees the old file or the whole new one); return their number."""
    num_records = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(record.model_dump_json() + "\n")
            num_records += 1
    os.replace(partial, path)
    return num_records


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically, indented for people."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a whole file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _parse_line(line: str, kind: type[AnyRecord], place: str) -> AnyRecord:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise DatasetFormatError(f"{place}: {field}: {first['msg']} (got {str(first['input'])[:80]!r})") from error
