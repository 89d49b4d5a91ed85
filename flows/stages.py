"""What every stage flow shares: skip what is done, seal what was made, copy it away, say how long it took."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from prefect import task

from flows.work import Counts
from memr1.config import RunConfig
from memr1.errors import ConfigError
from memr1.run_dir import DoneMarker, RunDir
from memr1.run_start import OpenRun, open_run

log = logging.getLogger(__name__)
INPUTS_NAME = "INPUTS"  # what a stage that is under way was begun on; its DONE.json says the same when it has finished


def finish_stage(run_dir: Path, stage: str, work: Callable[[OpenRun], Counts]) -> DoneMarker:
    """Do the stage's work unless it is done, seal it, and mirror it. Raises what the work raises."""
    run = RunDir(run_dir)
    with open_run(run) as opened:
        _require_earlier_stages(run, stage)
        done = run.read_done(stage)
        if done is None:
            done = _do_stage(opened, stage, work)
        else:
            log.info("%s: done before (%s)", _title(run, stage), _words(done.counts))
        _mirror_if_wanted(run, opened.config, stage)
    return done


def _do_stage(opened: OpenRun, stage: str, work: Callable[[OpenRun], Counts]) -> DoneMarker:
    _begin(opened.run, stage)
    title = _title(opened.run, stage)
    log.info("%s …", title)
    started = time.monotonic()
    counts = work(opened)
    done = opened.run.write_done(stage, dict(counts), time.monotonic() - started)
    folder = opened.run.done_file(stage).parent
    log.info("%s: %s → %s (%.0f s)", title, _words(done.counts), folder, done.seconds)
    return done


def _begin(run: RunDir, stage: str) -> None:
    """Keep half-done work for its own resume, but drop what was begun on other inputs."""
    digest = run.inputs_digest(stage)
    marker = run.done_file(stage).with_name(INPUTS_NAME)
    begun = marker.read_text(encoding="utf-8") if marker.exists() else None
    if begun != digest:
        for folder in run.folders(stage):
            shutil.rmtree(folder, ignore_errors=True)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(digest, encoding="utf-8")


def _require_earlier_stages(run: RunDir, stage: str) -> None:
    for earlier in run.stages[: run.stages.index(stage)]:
        if run.read_done(earlier) is None:
            raise ConfigError(
                f"{stage} needs {earlier}, which has not finished on its present inputs in {run.root}. "
                f"Do everything that is left with: memr1 run {run.root}"
            )


def _mirror_if_wanted(run: RunDir, config: RunConfig, stage: str) -> None:
    if config.storage.uri:
        mirror(run.root, stage, config.storage.uri)


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def mirror(run_dir: Path, stage: str, uri: str) -> None:
    """Copy a finished stage to the object store. Repeating it copies only what is missing."""
    from memr1.storage import mirror_stage

    mirror_stage(RunDir(run_dir), stage, uri)


def is_remote_registry(*_: object) -> bool:
    """When a failed task may be tried again: only a network can get well by itself. (Prefect passes task and state.)"""
    return os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")


def _title(run: RunDir, stage: str) -> str:
    return f"[{run.stages.index(stage) + 1}/{len(run.stages)}] {stage}"


def _words(counts: Mapping[str, int | float]) -> str:
    return ", ".join(f"{name.removeprefix('num_').replace('_', ' ')} {value:,}" for name, value in counts.items())
