"""Reading the conversations of the training banks on Ray: a part of them in each task, on whatever machine has room.

A part's journal lies in a folder of its own in the run directory, which every machine must see at the same path; a part
that was interrupted goes on behind its last record. The journals are gathered in the order of the conversations, and
the stage then goes on as on one machine and finds nothing left to read: so the banks are the same.

Left out: parts of one conversation. Its turns have to be read in order.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task

from memr1.config import RayBuild
from memr1.console import show_progress
from memr1.environment import embedding_cache
from memr1.errors import ConfigError
from memr1.run_dir import RunDir
from memr1.run_start import OpenRun, read_config

if TYPE_CHECKING:
    from prefect_ray import RayTaskRunner


def read_parts(opened: OpenRun, build: RayBuild) -> None:
    """Read every part on Ray and gather the journals in the run's store. Raises ConfigError without the extra [ray]."""
    runner = _build_runner()
    from prefect_ray.context import remote_options

    from memr1.agents.bank_stage import conversations_to_build
    from memr1.bank.exchange import import_bank

    run = RunDir(opened.run.root.resolve())
    firsts = range(0, len(conversations_to_build(run, opened.config)), build.conversations_per_part)

    @flow(name="build-bank-parts", task_runner=runner)
    def gather_parts() -> None:
        with remote_options(num_gpus=build.gpus_per_part):
            parts = [read_part.submit(run.root, first) for first in firsts]
        with show_progress("reading parts") as on_progress:
            for number, part in enumerate(parts, 1):
                import_bank(part.result(), run.bank / "store")
                on_progress(number, len(parts))

    gather_parts()


@task(name="read-part")
def read_part(run_dir: Path, first: int) -> Path:
    """Read the conversations from the `first` on, as many as a part has; where their journal is."""
    from memr1.agents.bank_stage import read_part as read

    run = RunDir(run_dir)
    return read(run, read_config(run), embedding_cache(), first)


def _build_runner() -> "RayTaskRunner[Any]":
    """On the cluster at $RAY_ADDRESS, or on this machine's processors."""
    try:
        from prefect_ray import RayTaskRunner
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'build.kind is "ray", but {error.name} is not installed: install memr1 with its extra, '
            "uv pip install -c constraints.txt -e '.[ray]', here and on every machine of the cluster"
        ) from error
    return RayTaskRunner()
