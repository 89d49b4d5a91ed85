"""Stage 2: the conversations of training and validation → 2_bank, read turn by turn by the Memory Manager as it is
before training.
"""

from pathlib import Path

from prefect import flow

from flows import work
from flows.child import in_child
from flows.stages import finish_stage


@flow(name="build-bank")
def build_bank(run_dir: Path) -> None:
    """Build the banks that the Memory Manager's examples start from."""
    finish_stage(run_dir, "build_bank", in_child(work.build_training_banks, "reading turns"))
