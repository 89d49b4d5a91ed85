"""What a person sees of a run: one line per message, a bar on a terminal, one line per 10 % otherwise.

Messages are log records of memr1's own loggers; the same records go to the run's log file and to the Prefect server.
Only the command line calls `show_on_terminal`; under a worker the server's log is the terminal.
"""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
OWN_LOGGERS = ("memr1", "flows")
TENTHS = 10


class OnProgress(Protocol):
    """Called after each step: the steps done, the steps in all, a few words about the newest, and which of several
    things that go on at once it belongs to."""

    def __call__(self, done: int, total: int, note: str = "", part: str = "") -> None: ...


class TerminalHandler(logging.Handler):
    """Writes messages to standard error, above a progress bar if one is drawn."""

    def __init__(self, console: "Console") -> None:
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        self.console.print(prefix + record.getMessage(), markup=False, highlight=False, emoji=False, soft_wrap=True)


def show_on_terminal() -> None:
    """Let memr1's messages appear on standard error. Does nothing the second time."""
    from rich.console import Console  # a tenth of a second: not for `memr1 --help`

    if _terminal() is None:
        handler = TerminalHandler(Console(stderr=True))
        for name in OWN_LOGGERS:
            logging.getLogger(name).addHandler(handler)
    set_own_levels()


def set_own_levels() -> None:
    """Messages of level INFO are part of a run; loggers otherwise inherit WARNING from the root."""
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)


@contextmanager
def write_log_file(path: Path) -> Iterator[None]:
    """While inside, everything that any library logs goes to `path` too, tracebacks included."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    set_own_levels()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


@contextmanager
def show_progress(label: str) -> Iterator[OnProgress]:
    """A function to call after each step: it draws a bar on a terminal, or logs one line per 10 %."""
    terminal = _terminal()
    if terminal is not None and sys.stderr.isatty():
        with _draw_bars(label, terminal.console) as on_progress:
            yield on_progress
    else:
        yield _TenthLines(label)


class _TenthLines:
    """Logs a line when another tenth of the steps is done."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = time.monotonic()
        self._tenths: dict[str, int] = {}

    def __call__(self, done: int, total: int, note: str = "", part: str = "") -> None:
        tenth = TENTHS * done // max(1, total)
        if tenth > self._tenths.get(part, 0):
            seconds = time.monotonic() - self._started
            words = f"{_join(self._label, part)}: {10 * tenth} % ({done} of {total}, {seconds:.0f} s)"
            log.info("%s", f"{words}: {note}" if note else words)
        self._tenths[part] = tenth


@contextmanager
def _draw_bars(label: str, console: "Console") -> Iterator[OnProgress]:
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}"),
    )
    with rich_progress.Progress(*columns, console=console, transient=True) as progress:
        bars = {"": progress.add_task(label, total=None, note="")}

        def on_progress(done: int, total: int, note: str = "", part: str = "") -> None:
            if part not in bars:
                bars[part] = progress.add_task(_join(label, part), total=total, note="")
            progress.update(bars[part], completed=done, total=total, note=note)

        yield on_progress


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned text: the first column to the left, figures to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _join(label: str, part: str) -> str:
    return f"{label} {part}" if part else label


def _terminal() -> TerminalHandler | None:
    handlers = logging.getLogger(OWN_LOGGERS[0]).handlers
    return next((handler for handler in handlers if isinstance(handler, TerminalHandler)), None)
