"""START READING HERE: raw conversations in, a promoted pair of agents out.

    raw dataset → conversations → memory bank → training examples → checkpoints → evaluation report → registry

Each stage is a flow of its own in the file of its name. It reads files and writes files in the run directory
(`memr1.run_dir`), seals them with a DONE.json, and is skipped when that still matches its inputs: running the
pipeline again continues where it stopped.
"""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows.build_bank import build_bank
from flows.evaluate import evaluate
from flows.register import register
from flows.train import train
from flows.validate import validate
from memr1.phases import training_phases
from memr1.run_start import open_run, start_run


@flow(name="memr1", flow_run_name="{profile}")
def pipeline(
    profile: str = "quickstart",
    dataset: str | None = None,
    overrides: Sequence[str] = (),
    run_dir: str | None = None,
) -> str:
    """From raw conversations to a promoted or refused pair. Returns the run directory.

    Args:
        profile: a shipped profile, a .toml file, or the directory of a run to continue
        dataset: path of the dataset: short for data.path=…
        overrides: options as "section.field=value"
        run_dir: where to write; without it an unfinished run of the same configuration goes on, or a new one begins
    """
    run = start_run(profile, overrides, dataset, Path(run_dir) if run_dir else None)
    with open_run(run) as opened:
        validate(run.root)
        build_bank(run.root)
        for phase in training_phases(opened.config):  # memory_manager, then answer_agent; or as training.policies says
            train(run.root, phase)
        evaluate(run.root)
        register(run.root)
    return str(run.root)
