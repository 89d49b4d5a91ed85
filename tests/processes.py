"""The environment of a memr1 process that a test starts."""

import os
from pathlib import Path

OF_THE_HOME = ("MEMR1_HOME", "PREFECT_HOME", "MLFLOW_TRACKING_URI")


def fresh_environment(home: Path, **variables: str) -> dict[str, str]:
    """This process's environment with a home of its own, and everything that lies in it."""
    kept = {name: value for name, value in os.environ.items() if name not in OF_THE_HOME}
    return {**kept, "MEMR1_HOME": str(home), **variables}
