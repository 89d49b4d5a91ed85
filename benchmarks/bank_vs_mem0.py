"""memr1's memory bank beside mem0, on the same texts, in one run.

    [MEM0_PYTHON=/path/to/python] python benchmarks/bank_vs_mem0.py [--quick] [--out FILE.json]

mem0 as its documentation sets it up for one machine: Qdrant's embedded store in a folder, history in SQLite, no extras
(so it looks for no entities and matches no words; with its extras it does more per call). memr1: its default bank, a
journal with a LanceDB table behind it. Either works in a process of its own, in turns; mem0 in a virtual environment
of its own next to the result, made when it is missing, or in that of $MEM0_PYTHON. Its telemetry is off.

Neither pays for a model: both call the same functions in process, for vectors (384 dimensions, a sum of word vectors)
and for decisions (one reply to one prompt, at once). Texts and replies are the same, as is what a model is shown: ten
memories. What remains is the libraries' own work: prompts, parsing, search, and storing durably. The row of texts
embedded per add says what a real embedding model would add; model calls are one per add for both.

Every add has returned, and is on the disk, before the next begins; in the row of many users memr1's bank builder reads
one turn of each user at a time, and one sync makes them durable. Searches return the best 20 of one user's memories,
right after the memory was filled and searched once. Seconds are the wall's; processor time is that of the library's
process, all threads, and does not wait for the disk or for other programs. Peak memory is that of the process that
filled and searched, its imports included and no embedding model in it.

`ratio` says how many times better memr1 is; below 1 mem0 is better.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beside_mem0.other_process import Worker, find_python, find_versions
from harness import run_benchmark

SIDES = ("mem0", "memr1")
Row = dict[str, object]
Workers = Mapping[str, Worker]


def measure(options: argparse.Namespace) -> dict[str, object]:
    try:
        python = find_python(options.out.parent, os.environ)
    except (OSError, subprocess.CalledProcessError) as error:
        return {"rows": [], "not_measured": f"no environment with mem0: {error}. Name one in $MEM0_PYTHON"}
    pythons = {"mem0": python, "memr1": Path(sys.executable)}
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_adds(pythons, Path(folder), options.quick)
        rows += measure_searches(pythons, Path(folder), options.quick)
        rows += try_behaviour(pythons, Path(folder), num_kills=2 if options.quick else 10)
    return {"versions": find_versions(python), "rows": rows}


def measure_adds(pythons: Mapping[str, Path], folder: Path, quick: bool) -> list[Row]:
    """Medians of rounds that take turns."""
    number, users, num_rounds = (200, 20, 1) if quick else (1_000, 20, 3)
    wanted = {
        f"adds/s, one user, {number} turns, stub model": ("adds", {"number": number}),
        f"adds/s, {users} users, {number} turns, stub model": (
            "adds_of_many_users",
            {"number": number, "users": users},
        ),
        f"adds/s, one user, {number} texts, no model": ("adds_without_model", {"number": number}),
    }
    with Worker.pair(pythons, folder / "adds") as workers:
        take_turns(workers, "adds", 1, number=20)  # imports, first files
        found = {what: take_turns(workers, task, num_rounds, **its) for what, (task, its) in wanted.items()}
    rows = [compare(what, {side: number / middle(its[side], "wall") for side in SIDES}) for what, its in found.items()]
    alone = found[next(iter(wanted))]
    work = {
        "processor ms per add, one user, stub model": {s: middle(alone[s], "processor") * 1e3 / number for s in SIDES},
        "texts embedded per add": {side: alone[side][0]["texts_embedded"] for side in SIDES},
        "model calls per add": {side: alone[side][0]["model_calls"] for side in SIDES},
    }
    return [*rows, *(compare(what, values, less_is_better=True) for what, values in work.items())]


def measure_searches(pythons: Mapping[str, Path], folder: Path, quick: bool) -> list[Row]:
    """The memory grows; at every size the two search in turns."""
    sizes, num_queries, num_rounds = ((200, 1_000), 20, 2) if quick else ((1_000, 5_000, 10_000), 200, 5)
    rows = []
    with Worker.pair(pythons, folder / "search") as workers:
        for size in sizes:
            for side in SIDES:
                workers[side]("grow", size=size)
            spent: dict[str, list[Mapping[str, float]]] = {side: [] for side in SIDES}
            step = num_queries // num_rounds
            for start in range(0, num_queries, step):
                for side in SIDES:
                    spent[side] += workers[side]("search", start=start, end=start + step)
            for clock, what in (("wall", "search p50"), ("processor", "search p50 of processor")):
                p50 = {side: middle(spent[side], clock) * 1e3 for side in SIDES}
                rows.append(compare(f"{what}, {size:,} memories, ms", p50, less_is_better=True))
        peaks = {side: workers[side]("peak_memory") for side in SIDES}
    return [*rows, compare(f"peak memory with {sizes[-1]:,} memories, MiB", peaks, less_is_better=True)]


def try_behaviour(pythons: Mapping[str, Path], folder: Path, num_kills: int) -> list[Row]:
    """What each does where memories get lost, doubled or contradict each other."""
    with Worker.pair(pythons, folder / "behaviour") as workers:
        tried = {side: {task: workers[side](task) for task in BEHAVIOURS} for side in SIDES}
        rows = [
            {"what": what, **{side: say(tried[side][task]) for side in SIDES}}
            for task, (what, say) in BEHAVIOURS.items()
        ]
        killed = {side: kill_while_adding(side, workers[side], pythons[side], folder, num_kills) for side in SIDES}
    rows.append({"what": f"acknowledged adds found after SIGKILL, {num_kills} times", **killed})
    return [{**row, "ratio": None} for row in rows]


def kill_while_adding(side: str, reader: Worker, python: Path, folder: Path, num_kills: int) -> str:
    """Acknowledged adds that are there after the process was killed while it went on adding."""
    num_found = num_acknowledged = 0
    for number in range(num_kills):
        memory = folder / f"killed {side} {number}"
        memory.mkdir()
        acknowledged = Worker(side, python, memory).kill_while("add_until_killed", 10 + 3 * number, folder=str(memory))
        found = reader("read", folder=str(memory))
        num_acknowledged += len(acknowledged)
        num_found += len(set(acknowledged) & set(found))
    return f"{num_found} of {num_acknowledged}"


def count_entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


def say_malformed(found: Mapping[str, Any]) -> str:
    if found["raised"]:
        return f"reported: {found['raised']}"
    kept = (
        f"kept in the journal ({found['num_kept']} of 1)"
        if found["num_kept"]
        else "lost but for a line in the log, nothing raised"
    )
    return f"{kept}, {count_entries(found['num_entries'])}"


def say_at_once(found: Mapping[str, Any]) -> str:
    held = found["reopened"]
    counted = held if isinstance(held, str) else count_entries(len(held))
    return f"{counted}, {len(found['errors'])} errors"


def say_contradiction(texts: Sequence[str]) -> str:
    return "yes" if len(texts) == 1 else f"no: {len(texts)} values"


BEHAVIOURS = {
    "malformed": ("an output that cannot be read", say_malformed),
    "one_after_another": ("four identical adds, one after another", count_entries),
    "at_once": ("four identical adds at once, four threads", say_at_once),
    "contradiction": ("a fact and its successor, model says UPDATE: one current value", say_contradiction),
    "deletion": ("a deleted memory is gone from search, reopened too", lambda found: "yes" if found else "no"),
}


def take_turns(workers: Workers, task: str, num_rounds: int, **options: object) -> dict[str, list[dict[str, float]]]:
    """The results of each side, which begin in turn."""
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(num_rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            results[side].append(workers[side](task, **options))
    return results


def middle(results: Sequence[Mapping[str, float]], clock: str) -> float:
    return statistics.median(result[clock] for result in results)


def compare(what: str, values: Mapping[str, float], less_is_better: bool = False) -> Row:
    ratio = values["mem0"] / values["memr1"] if less_is_better else values["memr1"] / values["mem0"]
    return {"what": what, **{side: float(f"{values[side]:.4g}") for side in SIDES}, "ratio": float(f"{ratio:.3g}")}


def show(figures: Mapping[str, Any]) -> str:
    """The rows as a table."""
    if not figures["rows"]:
        return str(figures["not_measured"])
    lines = [("", *SIDES, "memr1 is"), *(_cells(row) for row in figures["rows"])]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cells(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    ratio = row["ratio"]
    verdict = "" if ratio is None or ratio == 1 else f"{ratio:g} x better" if ratio > 1 else f"{1 / ratio:.3g} x worse"
    return str(row["what"]), str(row["mem0"]), str(row["memr1"]), verdict


if __name__ == "__main__":
    run_benchmark("bank_vs_mem0", __doc__, measure, show)
