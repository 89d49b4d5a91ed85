"""Flows started by a person in this process: Prefect's own lines go to the log file, memr1's to the terminal."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.local_server import temporary_server
from memr1.console import show_on_terminal
from memr1.environment import make_home
from memr1.errors import Memr1Error
from memr1.phases import phase_index, stage_of, training_phases
from memr1.run_dir import RunDir
from memr1.run_start import open_run, read_config, start_run

log = logging.getLogger(__name__)


def run_pipeline(source: str, overrides: Sequence[str], run_dir: Path | None) -> None:
    """Run all stages and say what can be done next."""
    show_on_terminal()
    run = start_run(source, overrides, run_dir=run_dir)
    with _under_prefect(run):
        from flows.pipeline import pipeline
        from flows.results import next_commands

        pipeline(profile=source, overrides=list(overrides), run_dir=str(run.root))
        log.info("\n".join(["", *next_commands(run)]))


def run_first_stage(source: str, overrides: Sequence[str], run_dir: Path | None) -> None:
    """Begin a run, or go on with one, and validate its dataset."""
    show_on_terminal()
    run = start_run(source, overrides, run_dir=run_dir)
    run_stage(run.root, "validate")
    log.info("next: memr1 run %s", run.root)


def run_training(run_dir: Path, phase: str | None) -> None:
    """Run one training phase of a run directory, or all. Raises ConfigError for a phase that it does not have."""
    config = read_config(RunDir(run_dir))
    phases = training_phases(config)
    for name in phases if phase is None else (phases[phase_index(config, phase)],):
        run_stage(run_dir, stage_of(name))


def run_stage(run_dir: Path, stage: str) -> None:
    """Run one stage of a run directory."""
    show_on_terminal()
    with _under_prefect(RunDir(run_dir)):
        _stage_flow(run_dir, stage)


def _stage_flow(run_dir: Path, stage: str) -> None:
    from flows.build_bank import build_bank
    from flows.evaluate import evaluate
    from flows.register import register
    from flows.train import train
    from flows.validate import validate

    if stage.startswith("train_"):
        train(run_dir, stage.removeprefix("train_"))
    else:
        {"validate": validate, "build_bank": build_bank, "evaluate": evaluate, "register": register}[stage](run_dir)


@contextmanager
def _under_prefect(run: RunDir) -> Iterator[None]:
    """Hold the run, with Prefect at hand but off the terminal; let an error leave with the path of the log."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    make_home()
    from prefect.settings import PREFECT_API_URL  # sets up Prefect's logging: before the log file is opened

    with open_run(run) as opened:
        try:
            if PREFECT_API_URL.value():
                yield
            else:
                with _temporary_prefect(opened.logs / "prefect_server.log"):
                    yield
        except KeyboardInterrupt:
            log.warning("interrupted; memr1 run %s goes on where it stopped", run.root)
            raise
        except Memr1Error as error:
            error.add_note(f"the whole log: {opened.log_file}")
            raise


@contextmanager
def _temporary_prefect(log_path: Path) -> Iterator[None]:
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_server(log_path) as server:
        import flows.pipeline  # noqa: F401  # takes as long as the server's start: both at once

        server.wait_until_up()
        # Nobody watches this server's heartbeats, and ending them takes a second for every flow.
        changes = {PREFECT_API_URL: server.api_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        with temporary_settings(changes):
            try:
                yield
            finally:
                APILogHandler().flush()
                EventsWorker.drain_all(timeout=5)
