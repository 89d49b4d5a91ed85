"""What training leaves on disk and where it resumes: sealed checkpoints and the metrics of the steps before them."""

import json
from collections.abc import Mapping
from pathlib import Path

from memr1.records import write_json

StepMetrics = Mapping[str, float]
SEAL = "DONE.json"  # written into a checkpoint last: without it the checkpoint is not whole


def seal_checkpoint(folder: Path, step: int) -> None:
    """Mark a checkpoint as whole."""
    write_json(folder / SEAL, {"step": step})


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from, or None."""
    return max((path.parent for path in folder.glob(f"checkpoint-*/{SEAL}")), key=checkpoint_step, default=None)


def checkpoint_step(checkpoint: Path) -> int:
    """Optimiser steps taken before the checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def read_metrics(path: Path) -> list[StepMetrics]:
    """The whole lines of a metrics.jsonl; a line still being written is left for the next look."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def forget_steps_after(path: Path, last_step: int) -> None:
    """Drop the lines of steps that a killed attempt took after its last checkpoint: they are taken again."""
    kept = [json.dumps(line) + "\n" for line in read_metrics(path) if line["step"] <= last_step]
    if path.exists():
        path.write_text("".join(kept), encoding="utf-8")
