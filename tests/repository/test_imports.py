"""What an import costs, and which way imports point."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch",
    "transformers",
    "weaviate",
    "lancedb",
    "mlflow",
    "prefect",
    "great_expectations",
    "boto3",
    "deepspeed",
}
MAX_FUNCTION_LINES, MAX_MODULE_LINES = 40, 350
SOURCES = sorted(path for folder in ("memr1", "flows") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "module", ["memr1.config", "memr1.run_start", "memr1.rl.launch", "memr1.evaluation.launch", "flows.cli"]
)
def test_importing_a_light_module_loads_nothing_heavy(module: str) -> None:
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert HEAVY & set(json.loads(done.stdout)) == set()


def test_imports_point_one_way() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_short_enough_to_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES]
    assert long == []


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "common", "helpers", "base", "constants", "core"}
    assert [str(path) for path in SOURCES if path.stem in drawers or drawers & set(path.parts)] == []
