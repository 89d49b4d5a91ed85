"""Every test runs with a home of its own, off the network, and skips with its reason where it cannot run."""

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)  # a test run says the same twice
settings.load_profile("repeatable")
HOME = tempfile.mkdtemp(prefix="memr1-tests-")
for name in ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI", "MEMR1_ENDPOINT_URL", "MEMR1_ENDPOINT_KEY"):
    os.environ.pop(name, None)  # a developer's servers are not for tests
os.environ["MEMR1_HOME"] = HOME

from memr1.environment import has_gpu, set_environment_defaults, set_hub_default  # noqa: E402

set_environment_defaults()  # before any library is imported
set_hub_default(names_hub_model=False)


@pytest.fixture(scope="session", autouse=True)
def _home_of_the_tests() -> Iterator[None]:
    yield
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests explain why they do not run."""
    if has_gpu():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="this machine has no GPU"))
