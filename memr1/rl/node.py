"""One of the other machines of a training: waits for the first one (memr1.rl.meeting), runs its share of the ranks, and
ends them when it is told to, when a rank fails, or when the first machine is no longer heard of.

    memr1 train-node RUN_DIR [PHASE]           typed there, or by a cluster's scheduler
    python -m memr1.rl.node RUN_DIR PHASE      the same over ssh
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from memr1.config import RunConfig
from memr1.environment import set_environment_defaults, set_hub_default
from memr1.errors import ConfigError, Memr1Error, WorkerFailed
from memr1.phases import phase_index, stage_of, training_phases
from memr1.records import write_json
from memr1.rl.meeting import BEAT_SECONDS, Meeting, NodeReport, Pulse, read_record, rendezvous
from memr1.rl.torchrun import started_ranks
from memr1.rl.worker import ERROR_MARK
from memr1.run_dir import RunDir
from memr1.run_start import names_hub_model, read_config

log = logging.getLogger(__name__)
POLL_SECONDS = 0.25


def main() -> None:
    """What ssh starts."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    set_environment_defaults()
    try:
        join_training(RunDir(Path(sys.argv[1])), sys.argv[2])
    except Memr1Error as error:
        print(f"{ERROR_MARK}{error}", flush=True)
        raise SystemExit(1) from error


def join_run(run: RunDir, phase: str | None = None) -> None:
    """Join the training of one phase, or of all that are not done, in order. Raises what `join_training` does."""
    phases = [phase] if phase else training_phases(read_config_here(run))
    for name in phases:
        if phase or run.read_done(stage_of(name)) is None:
            join_training(run, name)


def join_training(run: RunDir, phase: str) -> None:
    """Wait for the training of a phase to begin, and take part in it to its end.

    Raises ConfigError when the run directory is not seen here or has no such phase, WorkerFailed when the training ends
    before its time.
    """
    config = read_config_here(run)
    phase_index(config, phase)
    set_hub_default(names_hub_model(config))
    meeting = await_meeting(run.nodes(phase))
    name = f"{socket.gethostname()}-{os.getpid()}"
    log_path = (run.root / meeting.log).with_suffix(f".{name}.log")
    log.info("joined the training of %s; its log here: %s", phase, log_path)
    report = _Report(run.nodes(phase), NodeReport(meeting=meeting.id, name=name))
    with log_path.open("ab") as log_file, report:
        with started_ranks(run, config, phase, log_file, rendezvous(meeting, config, is_host=False)) as process:
            reason = _watch(process, report, meeting)
        report.end(process.returncode)
    if reason or process.returncode:
        raise WorkerFailed(f"{reason or f'the ranks here ended with code {process.returncode}'}; see {log_path}")


def await_meeting(folder: Path) -> Meeting:
    """The meeting that somebody keeps up: one left behind by a first machine that died is not joined."""
    seen: Meeting | None = None
    while True:
        meeting = read_record(folder / "meeting.json", Meeting)
        if meeting is not None and seen is not None and meeting.id == seen.id and meeting.beat != seen.beat:
            return meeting
        seen = meeting
        time.sleep(BEAT_SECONDS / 2)


class _Report:
    """This machine's file in the meeting's folder."""

    def __init__(self, folder: Path, report: NodeReport) -> None:
        self._folder, self._report = folder, report
        self._written = 0.0

    def __enter__(self) -> None:
        self._write()

    def __exit__(self, *_: object) -> None:
        if self._report.returncode is None:  # ended from outside
            self.end(1)

    def read_meeting(self) -> Meeting | None:
        """The meeting as it is now; None when it is over."""
        meeting = read_record(self._folder / "meeting.json", Meeting)
        return meeting if meeting is not None and meeting.id == self._report.meeting else None

    def beat(self) -> None:
        """Say that this machine lives."""
        if time.monotonic() - self._written > BEAT_SECONDS:
            self._report = self._report.model_copy(update={"beat": self._report.beat + 1})
            self._write()

    def end(self, returncode: int) -> None:
        """Say how its ranks ended."""
        self._report = self._report.model_copy(update={"returncode": returncode})
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        if self.read_meeting() is not None:  # else nobody reads it
            write_json(self._folder / f"node-{self._report.name}.json", self._report.model_dump())


def _watch(process: "subprocess.Popen[bytes]", report: _Report, meeting: Meeting) -> str:
    """Until the ranks end ("") or must be ended: why."""
    pulse = Pulse()
    while process.poll() is None:
        now = report.read_meeting()
        if now is None:
            return "the first machine has ended the training"
        if pulse.is_lost(now.beat):
            return "the first machine is no longer heard of"
        report.beat()
        time.sleep(POLL_SECONDS)
    return ""


def read_config_here(run: RunDir) -> RunConfig:
    """The run's configuration. Raises ConfigError when this machine does not see it."""
    if not run.config.is_file():
        raise ConfigError(
            f"{socket.gethostname()} sees no {run.config}: the run directory must be on a file system that every "
            "machine of a training sees"
        )
    return read_config(run)


if __name__ == "__main__":
    main()
