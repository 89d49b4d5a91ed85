"""Stage 1: the raw dataset → 1_data, through the gates in expectations/."""

import logging
from pathlib import Path

from prefect import flow

from flows.stages import Counts, finish_stage
from memr1.run_start import OpenRun

log = logging.getLogger(__name__)


@flow(name="validate")
def validate(run_dir: Path) -> None:
    """Read the dataset, let the suites judge it, keep what they accept."""
    finish_stage(run_dir, "validate", _accept_dataset)


def _accept_dataset(opened: OpenRun) -> Counts:
    from memr1.data.loading import load_dataset
    from memr1.data.stored import write_dataset
    from memr1.data.validation import validate_dataset

    dataset = load_dataset(opened.config.data, opened.config.seed)
    accepted, _ = validate_dataset(dataset, opened.run)
    identity = write_dataset(opened.run, accepted)
    if identity.licence_notice:
        log.warning("%s", identity.licence_notice)
    return {
        "num_conversations": identity.num_conversations,
        "num_turns": identity.num_turns,
        "num_questions": identity.num_questions,
        "num_rejected": len(accepted.left_out),
    }
