"""How the machines of one training find one another and notice when one of them is gone.

The first machine (the one with the flow) keeps `meeting.json` in the run directory: where torchrun's agents meet, and a
number that it raises every two seconds. Every other machine keeps a file of its own there, raises a number too, and
leaves its exit code. Whoever sees a number stand still, or a file gone, ends its own ranks: nothing depends on a
connection that might hang, on clocks that agree, or on a machine that is dead saying so. The run directory must
therefore be on a file system that all machines see.

With hosts in $MEMR1_HOSTS the first machine also starts the others, over ssh, each by the command that a person would
type there (memr1.rl.node). It reaches no further than that: an ssh that dies takes no rank with it, and need not.
"""

import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from memr1.config import RunConfig
from memr1.errors import ConfigError
from memr1.records import AnyRecord, Record, write_json
from memr1.rl.torchrun import GRACE_SECONDS, end_group
from memr1.run_dir import RunDir

log = logging.getLogger(__name__)
BEAT_SECONDS = 2.0
LOST_SECONDS = 60.0  # a network file system may show a change half a minute late
HOSTS, ADDRESS = "MEMR1_HOSTS", "MEMR1_NODE_ADDRESS"


class Meeting(Record):
    """What the first machine tells the others: meeting.json."""

    id: str
    endpoint: str  # host:port
    log: str  # the first machine's, relative to the run directory
    beat: int = 0


class NodeReport(Record):
    """What another machine tells the first one: a file with its name."""

    meeting: str  # its id
    name: str
    beat: int = 0
    returncode: int | None = None  # once its ranks have ended


class Pulse:
    """Whether a number that another machine keeps raising has stood still for too long."""

    def __init__(self, limit_seconds: float = LOST_SECONDS) -> None:
        self._limit = limit_seconds
        self._beat, self._since = -1, time.monotonic()

    def is_lost(self, beat: int) -> bool:
        """Give the number as it is now."""
        if beat != self._beat:
            self._beat, self._since = beat, time.monotonic()
        return time.monotonic() - self._since > self._limit


class Gathering:
    """The first machine's side of a meeting of several; of one machine alone it is nothing at all."""

    def __init__(self, folder: Path, meeting: Meeting, helpers: Mapping[str, "subprocess.Popen[bytes]"]) -> None:
        """`helpers` are the ssh processes by host."""
        self._folder, self._meeting, self._helpers = folder, meeting, helpers
        self._pulses: dict[str, Pulse] = {}
        self._written = time.monotonic()

    def find_fault(self) -> str | None:
        """Raise the own number, look at the others': what has gone wrong, or None."""
        if time.monotonic() - self._written > BEAT_SECONDS:
            self._meeting = self._meeting.model_copy(update={"beat": self._meeting.beat + 1})
            write_json(self._folder / "meeting.json", self._meeting.model_dump())
            self._written = time.monotonic()
        for report in self._reports():
            if report.returncode:
                return f"the ranks on {report.name} ended with code {report.returncode}"
            pulse = self._pulses.setdefault(report.name, Pulse())
            if report.returncode is None and pulse.is_lost(report.beat):
                return f"nothing has been heard of {report.name} for {LOST_SECONDS:.0f} s"
        ended = {host: process.poll() for host, process in self._helpers.items()}
        return next((f"ssh {host} ended with code {code}" for host, code in ended.items() if code), None)

    def await_others(self) -> None:
        """Give the other machines time to see for themselves that all is done."""
        deadline = time.monotonic() + GRACE_SECONDS
        while any(report.returncode is None for report in self._reports()) and time.monotonic() < deadline:
            time.sleep(0.1)

    def _reports(self) -> list[NodeReport]:
        found = (read_record(path, NodeReport) for path in self._folder.glob("node-*.json"))
        return [report for report in found if report is not None and report.meeting == self._meeting.id]


@contextmanager
def open_meeting(
    run: RunDir, config: RunConfig, phase: str, log_file: BinaryIO
) -> Iterator[tuple[list[str], Gathering | None]]:
    """Call the other machines together, if there are any: torchrun's options, and who watches over them."""
    if config.training.num_nodes == 1:
        yield ["--standalone"], None
        return
    hosts = find_hosts(config.training.num_nodes)
    address, folder = own_address(), run.nodes(phase)
    log_path = Path(log_file.name).resolve()
    meeting = Meeting(
        id=uuid.uuid4().hex,
        endpoint=f"{address}:{_free_port()}",
        log=os.path.relpath(log_path, run.root.resolve()),
    )
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / "meeting.json", meeting.model_dump())
    if not hosts:
        others = config.training.num_nodes - 1
        log.info("waiting for %d other machine(s): on each, memr1 train-node %s", others, run.root.resolve())
    with ExitStack() as stack:
        helpers = {host: stack.enter_context(_helper(host, run, phase, log_file)) for host in hosts}
        stack.callback(shutil.rmtree, folder, ignore_errors=True)  # first of all: it is what ends the others
        yield rendezvous(meeting, config, is_host=True), Gathering(folder, meeting, helpers)


def rendezvous(meeting: Meeting, config: RunConfig, *, is_host: bool) -> list[str]:
    """torchrun's options for meeting there."""
    options = {
        "--nnodes": str(config.training.num_nodes),
        "--rdzv-backend": "c10d",
        "--rdzv-endpoint": meeting.endpoint,
        "--rdzv-id": meeting.id,
        "--rdzv-conf": f"is_host={is_host}",
        "--local-addr": own_address(),
    }
    return [word for option in options.items() for word in option]


def own_address(environ: Mapping[str, str] = os.environ) -> str:
    """How the other machines reach this one."""
    return environ.get(ADDRESS) or socket.getfqdn()


def find_hosts(num_nodes: int, environ: Mapping[str, str] = os.environ) -> list[str]:
    """The hosts to start over ssh; empty when the other machines start themselves. Raises ConfigError."""
    hosts = environ.get(HOSTS, "").replace(",", " ").split()
    if hosts and len(hosts) != num_nodes - 1:
        raise ConfigError(
            f"${HOSTS} names {len(hosts)} host(s) ({', '.join(hosts)}), but training.num_nodes = {num_nodes} needs "
            f"{num_nodes - 1} beside this machine: name the others only, or none to start them yourself"
        )
    if hosts and shutil.which("ssh") is None:
        raise ConfigError(f"${HOSTS} names hosts, but there is no ssh here to start them with: install an ssh client")
    return hosts


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """What stands in the file; None while there is none."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


@contextmanager
def _helper(host: str, run: RunDir, phase: str, log_file: BinaryIO) -> Iterator["subprocess.Popen[bytes]"]:
    words: Sequence[str] = [sys.executable, "-m", "memr1.rl.node", str(run.root.resolve()), phase]
    remote = f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join(words)}"
    process = subprocess.Popen(
        ["ssh", "-o", "BatchMode=yes", host, remote],
        stdin=subprocess.DEVNULL,
        stdout=log_file,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        try:
            process.wait(2 * GRACE_SECONDS)  # the other machine ends its ranks, and with them this connection
        except subprocess.TimeoutExpired:
            log.warning("%s has not ended its ranks yet; it ends them when it next looks into the run directory", host)
        end_group(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
