"""Stage 2: the training conversations → 2_bank, read turn by turn by the Memory Manager as it is before training."""

from pathlib import Path

from prefect import flow

from flows.stages import Counts, finish_stage
from memr1.run_start import OpenRun


@flow(name="build-bank")
def build_bank(run_dir: Path) -> None:
    """Build the banks that the Memory Manager's training examples start from."""
    finish_stage(run_dir, "build_bank", _build_training_banks)


def _build_training_banks(opened: OpenRun) -> Counts:
    from memr1.agents.bank_stage import build_training_banks
    from memr1.console import show_progress
    from memr1.environment import embedding_cache

    with show_progress("reading turns") as on_progress:
        summary = build_training_banks(opened.run, opened.config, embedding_cache(), on_progress)
    return {
        "num_turns": summary.num_turns,
        "num_entries": summary.num_entries,
        "num_parse_failures": summary.num_parse_failures,
    }
