"""What training leaves on disk and where it resumes: sealed checkpoints, the metrics of the steps before them, and the
weights that are served.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from memr1.errors import CheckpointMissing
from memr1.records import Record, write_json, write_text

StepMetrics = Mapping[str, float]
SEAL = "DONE.json"  # written into a checkpoint last: without it the checkpoint is not whole
STATE = "trainer_state.json"
SERVED = "served.json"
FOR_RESUME = ("global_step*", "latest", "zero_to_*.py", "*.pt", "*.pth", STATE, SEAL)  # nothing of it is served


class ServedWeights(Record):
    """Which checkpoint's weights are served, and how it did on the validation examples (None: nothing was scored)."""

    step: int
    validation_reward: float | None


def seal_checkpoint(folder: Path, step: int) -> None:
    """Mark a checkpoint as whole."""
    write_json(folder / SEAL, {"step": step})


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from, or None."""
    return max((path.parent for path in folder.glob(f"checkpoint-*/{SEAL}")), key=checkpoint_step, default=None)


def checkpoint_step(checkpoint: Path) -> int:
    """Optimiser steps taken before the checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def serve_weights(folder: Path, model: Path, finish: Callable[[Path], Path] = lambda copied: copied) -> ServedWeights:
    """Copy the weights of the best scored checkpoint, or of the newest where none was scored, to `model` in one rename.

    `finish` may make other weights of the copy, and returns their folder. `served.json` in `folder` says which
    checkpoint it was. Raises CheckpointMissing.
    """
    newest = newest_whole_checkpoint(folder)
    if newest is None:
        raise CheckpointMissing(f"training left no whole checkpoint in {folder}: repeat the command")
    state = json.loads((newest / STATE).read_text(encoding="utf-8"))
    served = ServedWeights(
        step=state["best_global_step"] or checkpoint_step(newest), validation_reward=state["best_metric"]
    )
    chosen = folder / f"checkpoint-{served.step}"
    if not (chosen / SEAL).exists():
        raise CheckpointMissing(f"{chosen}, the best scored checkpoint, is gone: remove {folder} to train again")
    partial = folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(chosen, partial, ignore=shutil.ignore_patterns(*FOR_RESUME))
    whole = finish(partial)
    write_json(folder / SERVED, served.model_dump(mode="json"))
    shutil.rmtree(model, ignore_errors=True)
    os.replace(whole, model)
    return served


def read_served(folder: Path) -> ServedWeights:
    """What `serve_weights` wrote. Raises CheckpointMissing."""
    try:
        return ServedWeights.model_validate_json((folder / SERVED).read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointMissing(f"cannot read {folder / SERVED} ({error}): repeat the command") from error


def read_metrics(path: Path) -> list[StepMetrics]:
    """The whole lines of a metrics.jsonl; a line still being written is left for the next look."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def forget_steps_after(path: Path, last_step: int) -> None:
    """Drop the lines of steps that a killed attempt took after its last checkpoint: they are taken again."""
    if path.exists():
        kept = [json.dumps(line) + "\n" for line in read_metrics(path) if line["step"] <= last_step]
        write_text(path, "".join(kept))  # a kill in between must not take the lines that are kept
