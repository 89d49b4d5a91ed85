"""Stage 5: 4_checkpoints and 5_evaluation → 6_registry. The pair becomes a version, and champion if it is better."""

import json
import logging
from pathlib import Path

from prefect import flow, task

from flows.stages import finish_stage, is_remote_registry
from flows.work import Counts
from memr1.run_dir import RunDir
from memr1.run_start import OpenRun, read_config

log = logging.getLogger(__name__)


@flow(name="register")
def register(run_dir: Path) -> None:
    """Register the pair as challenger, and promote it if it beats what serves."""
    finish_stage(run_dir, "register", _register)
    log.info("%s", describe_decision(RunDir(run_dir)))


@task(retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=is_remote_registry)
def register_pair(run_dir: Path) -> int:
    """Register and judge the run's pair; return its version. Repeating it registers nothing twice."""
    from memr1.registry.promotion import register_run

    run = RunDir(run_dir)
    return int(register_run(run, read_config(run)).version)


def describe_decision(run: RunDir) -> str:
    """The gate's reasons, in one line."""
    gate = json.loads((run.registry / "gate.json").read_text(encoding="utf-8"))
    return f"{gate['model_name']} version {gate['challenger_version']}: {' '.join(gate['decision']['reasons'])}"


def _register(opened: OpenRun) -> Counts:
    return {"version": register_pair(opened.run.root)}
