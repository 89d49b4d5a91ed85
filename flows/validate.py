"""Stage 1: the raw dataset → 1_data, through the gates in expectations/."""

import logging
from pathlib import Path

from prefect import flow

from flows import work
from flows.child import in_child
from flows.stages import finish_stage
from memr1.data.stored import read_identity
from memr1.run_dir import RunDir

log = logging.getLogger(__name__)


@flow(name="validate")
def validate(run_dir: Path) -> None:
    """Read the dataset, let the suites judge it, keep what they accept."""
    finish_stage(run_dir, "validate", in_child(work.accept_dataset, "checking"))
    notice = read_identity(RunDir(run_dir)).licence_notice
    if notice:
        log.warning("%s", notice)
