"""Runs a stage's work in a process of its own: what a model or a library took in memory goes back when it ends, before
the next stage starts processes of its own. The flow's process stays small, and never imports torch.

The child talks to its parent by JSON lines: log records, progress, and in the end the result or a Memr1Error. What
libraries print goes to the log file.

    python -m flows.child MODULE:FUNCTION RUN_DIR WORD…    calls FUNCTION(run, config, on_progress, *words) -> Counts
"""

import importlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Concatenate

from flows.work import Counts
from memr1 import errors
from memr1.config import RunConfig
from memr1.console import OnProgress, set_own_levels, show_progress
from memr1.run_dir import RunDir
from memr1.run_start import OpenRun, read_config

Work = Callable[Concatenate[RunDir, RunConfig, OnProgress, ...], Counts]
STOP_SECONDS = 10.0


def in_child(work: Work, label: str, *words: str) -> Callable[[OpenRun], Counts]:
    """The same work, done in a child and shown as `label`. It may raise the child's Memr1Error, as its own class.

    `words` are what the work is told beyond the run.
    """
    name = f"{work.__module__}:{work.__qualname__}"

    def run(opened: OpenRun) -> Counts:
        log_path = opened.logs / f"{work.__qualname__}.log"
        with show_progress(label) as on_progress, log_path.open("ab") as log_file:
            return _run([name, str(opened.run.root.resolve()), *words], log_file, on_progress)

    return run


def _run(told: list[str], log_file: BinaryIO, on_progress: OnProgress) -> Counts:
    with _child([sys.executable, "-m", "flows.child", *told], log_file) as process:
        for line in process.stdout or ():
            message = json.loads(line)
            if message["kind"] == "result":
                return dict(message["counts"])
            _take(message, on_progress)
        code = process.wait()
    raise errors.Memr1Error(f"{told[0]} ended with code {code} and no result; its last words are in {log_file.name}")


def main() -> None:
    """The child's process."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print must not reach the parent as a message
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    logging.getLogger().addHandler(_Relay(channel))
    set_own_levels()
    module, function = sys.argv[1].split(":")
    run = RunDir(Path(sys.argv[2]))
    try:
        work = getattr(importlib.import_module(module), function)
        counts = work(run, read_config(run), _progress_to(channel), *sys.argv[3:])
    except errors.Memr1Error as error:
        traceback.print_exc()  # into the log file: the parent only tells the message
        _send(channel, kind="error", name=type(error).__name__, text=str(error))
    else:
        _send(channel, kind="result", counts=dict(counts))


class _Relay(logging.Handler):
    """Sends log records to the parent, which logs them under the same name."""

    def __init__(self, channel: IO[str]) -> None:
        super().__init__(logging.INFO)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        _send(self._channel, kind="log", name=record.name, level=record.levelno, text=self.format(record))


def _progress_to(channel: IO[str]) -> OnProgress:
    def on_progress(done: int, total: int, note: str = "", part: str = "") -> None:
        _send(channel, kind="progress", done=done, total=total, note=note, part=part)

    return on_progress


def _send(channel: IO[str], **message: Any) -> None:
    channel.write(json.dumps(message) + "\n")


def _take(message: dict[str, Any], on_progress: OnProgress) -> None:
    if message["kind"] == "progress":
        on_progress(message["done"], message["total"], message["note"], message["part"])
    elif message["kind"] == "log":
        logging.getLogger(message["name"]).log(message["level"], "%s", message["text"])
    else:
        raise getattr(errors, message["name"])(message["text"])


@contextmanager
def _child(command: list[str], log_file: BinaryIO) -> Iterator["subprocess.Popen[str]"]:
    """A process with our end of its channel; whatever happens inside, it has ended afterwards."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log_file, start_new_session=True, text=True
    )
    finished = False
    try:
        yield process
        finished = True
    finally:
        if not finished:
            process.terminate()
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
