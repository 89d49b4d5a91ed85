"""Stage 2: the conversations of training and validation → 2_bank, read turn by turn by the Memory Manager as it is
before training; on this machine, or on many (`build.kind`).
"""

import shutil
from pathlib import Path

from prefect import flow

from flows import work
from flows.child import in_child
from flows.stages import finish_stage
from flows.work import Counts
from memr1.run_start import OpenRun


@flow(name="build-bank")
def build_bank(run_dir: Path) -> None:
    """Build the banks that the Memory Manager's examples start from."""
    finish_stage(run_dir, "build_bank", _build)


def _build(opened: OpenRun) -> Counts:
    build = opened.config.build
    if build.kind == "ray":
        from flows.parts_on_ray import read_parts

        read_parts(opened, build)
    counts = in_child(work.build_training_banks, "reading turns")(opened)
    shutil.rmtree(opened.run.bank / "parts", ignore_errors=True)  # until here they spare a repeated command the reading
    return counts
