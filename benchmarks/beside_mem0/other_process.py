"""The two libraries' processes, as the benchmark that starts them sees them, and mem0's own virtual environment."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

MEM0 = "mem0ai==2.2.1"
VARIABLE = "MEM0_PYTHON"
WORKER = Path(__file__).with_name("worker.py")
CHECKOUT = WORKER.parents[2]


class Worker:
    """A process that does tasks for one library, one at a time, in a folder of its own."""

    def __init__(self, side: str, python: Path, folder: Path) -> None:
        self._side = side
        self._errors_path = folder / "errors.log"
        self._errors = self._errors_path.open("wb")
        self._process = subprocess.Popen(
            [str(python), str(WORKER), side, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={
                **os.environ,
                "PYTHONPATH": str(CHECKOUT),
                "OMP_NUM_THREADS": "1",
                "MEM0_TELEMETRY": "False",
                "MEM0_DIR": str(folder / "mem0 home"),
            },
        )

    @classmethod
    @contextmanager
    def pair(cls, pythons: Mapping[str, Path], folder: Path) -> Iterator[dict[str, "Worker"]]:
        """One of each library, until the block ends."""
        with ExitStack() as running:
            workers = {}
            for side, python in pythons.items():
                (folder / side).mkdir(parents=True)
                workers[side] = cls(side, python, folder / side)
                running.callback(workers[side].end)
            yield workers

    def __call__(self, task: str, **options: object) -> Any:
        """The result of a task. Raises RuntimeError, with the end of what the process said, when there is none."""
        self._ask(task, options)
        return self._result(task)

    def kill_while(self, task: str, num_results: int, **options: object) -> list[Any]:
        """Kill the process, without a warning, once so many results of the task have come: all that came."""
        self._ask(task, options)
        results = [self._result(task) for _ in range(num_results)]
        self._process.kill()
        results += [json.loads(line) for line in self._output if line.endswith(b"\n")]
        self.end()
        return results

    def end(self) -> None:
        """Wait for the process, which ends when nothing more is asked of it."""
        self._input.close()
        self._output.close()
        self._process.wait()
        self._errors.close()

    @property
    def _input(self) -> Any:
        return self._process.stdin

    @property
    def _output(self) -> Any:
        return self._process.stdout

    def _ask(self, task: str, options: Mapping[str, object]) -> None:
        self._input.write(json.dumps({"task": task, "options": options}).encode() + b"\n")
        self._input.flush()

    def _result(self, task: str) -> Any:
        line = self._output.readline()
        if not line:
            said = self._errors_path.read_text(errors="replace")[-2_000:]
            raise RuntimeError(f"{self._side} gave no result of {task!r}:\n{said}")
        return json.loads(line)


def find_python(folder: Path, environ: Mapping[str, str]) -> Path:
    """The interpreter of an environment with mem0: the named one, or that of a virtual environment in `folder`.

    Raises OSError or CalledProcessError when it cannot be made.
    """
    if environ.get(VARIABLE):
        return Path(environ[VARIABLE])
    python = folder.absolute() / ".mem0-venv" / "bin" / "python"
    ready = python.parents[1] / MEM0  # written last: a half-made environment is made again
    if not ready.exists():
        print(f"installing {MEM0} into {python.parents[1]}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", MEM0], check=True)
        ready.touch()
    return python


def find_versions(python: Path) -> dict[str, str]:
    """The installed versions that decide on mem0's figures."""
    names = ("mem0ai", "qdrant-client", "numpy")
    script = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    said = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(said))
