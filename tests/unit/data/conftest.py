"""Where the public datasets lie on a machine that has them; tests that need one skip with the reason elsewhere."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("MEMR1_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture
def shared_file() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"no {name} in {SHARED} (set MEMR1_SHARED_DATA to its folder)")
        return SHARED / name

    return find
