"""What every benchmark shares: its options, and a result file that says where, when and how it came about."""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memr1.machine import describe_machine, find_commit
from memr1.records import write_json

CHECKOUT = Path(__file__).resolve().parents[1]
Measure = Callable[[argparse.Namespace], Mapping[str, object]]


def run_benchmark(
    name: str,
    description: str,
    measure: Measure,
    show: Callable[[Mapping[str, object]], str] | None = None,
    draw: Callable[[Mapping[str, object], Path], None] | None = None,
) -> None:
    """Measure, print a table (`show`, or a line for every figure), write benchmarks/results/<name>.json or --out FILE.

    `draw` makes a picture of the figures, <name>.svg beside that file.

    `measure` gets the options: `quick` asks for the same work, smaller, within a minute; `data` names a dataset file,
    `seconds` is a budget.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = CHECKOUT / "benchmarks" / "results" / f"{name}.json"
    parser.add_argument("--out", type=Path, default=default, help="where the figures are written")
    parser.add_argument("--quick", action="store_true", help="the same work, smaller: at most a minute")
    parser.add_argument("--data", type=Path, default=Path("locomo10.json"), help="LoCoMo's file, where it is measured")
    parser.add_argument("--seconds", type=float, default=180, help="training time of an arm, where arms share a budget")
    options = parser.parse_args()
    began = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": describe_machine(CHECKOUT)}
    figures = measure(options)
    print((show or show_lines)(figures))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, {**began, **figures})
    if draw is not None:
        draw(figures, options.out.with_suffix(".svg"))


def found_once(options: argparse.Namespace, name: str, find: Callable[[], Any]) -> Any:
    """What `find` finds; it is kept as JSON, and the same command at the same commit does not look for it again.

    In a folder beside the figures, one for each commit. Changes that no commit has may have any name: they keep nothing
    that a later command finds. --quick keeps nothing: it is there to see the work done.
    """
    if options.quick:
        return find()
    commit = (find_commit(CHECKOUT) or "+changes").replace("+changes", f"+{os.getpid()}")
    path = options.out.with_name(f"{options.out.stem}.whole.{commit}") / f"{name}.json"
    if not path.exists():
        found = find()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    return json.loads(path.read_text(encoding="utf-8"))


def show_lines(figures: Mapping[str, object]) -> str:
    """A line for every figure, behind the names that lead to it."""
    lines = list(_name_figures(figures))
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines)


def _name_figures(figures: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _name_figures(value, f"{before}{name} · ")
        else:
            yield f"{before}{name}".replace("_", " "), value


def memory_field(name: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
