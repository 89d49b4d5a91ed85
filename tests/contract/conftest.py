"""What the contracts run on: a home for the registry (MLflow on SQLite, as memr1 uses it where nobody named a server),
and one opener of bank stores for each kind."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memr1.bank.bank import BankStore
from memr1.bank.embedding import HashEmbedder
from memr1.bank.stores import open_store
from memr1.bank.weaviate_address import URL
from memr1.config import BankConfig, InMemoryBank, LanceBank, WeaviateBank
from memr1.registry.tracking import connect
from tests.weaviate_double import running_double
from tests.weaviate_process import BINARY, delete_collection, has_real_weaviate, real_weaviate

Opener = Callable[[Path], BankStore]
KINDS = ["in_memory", "lancedb", "weaviate_double"]
if has_real_weaviate():
    KINDS.append("weaviate")  # the end of pytest's summary says whether there was one


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes seconds, copying it none."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        connect().search_experiments()
    return path


@pytest.fixture
def registry_home(tmp_path: Path, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$MEMR1_HOME of one test, which runs in an empty working directory beside it."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(mlflow_template, home / "mlflow.db")
    monkeypatch.setenv("MEMR1_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture(params=KINDS)
def open_bank_store(request: pytest.FixtureRequest) -> Opener:
    """One kind of bank after another: what a test says of one, it says of all."""
    opener: Opener = request.getfixturevalue(f"{request.param}_opener")
    return opener


def opener_of(config: BankConfig) -> Opener:
    return lambda folder: open_store(config, folder, HashEmbedder())


@pytest.fixture
def in_memory_opener() -> Opener:
    return opener_of(InMemoryBank(kind="in_memory"))


@pytest.fixture
def lancedb_opener() -> Opener:
    return opener_of(LanceBank())


@pytest.fixture(scope="session")
def weaviate_double_opener() -> Iterator[Opener]:
    from memr1.bank.weaviate_bank import WeaviateStore

    options = WeaviateBank(kind="weaviate", collection="Contract")
    with running_double() as double:
        yield lambda folder: WeaviateStore(folder, HashEmbedder(), options, double.address)


@pytest.fixture(scope="session")
def weaviate_opener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    """Stores on a real server, in a collection that is deleted in the end."""
    from memr1.bank.weaviate_bank import WeaviateStore

    options = WeaviateBank(kind="weaviate", collection=f"Contract_{secrets.token_hex(4)}")
    with real_weaviate(tmp_path_factory.mktemp("weaviate")) as address:
        yield lambda folder: WeaviateStore(folder, HashEmbedder(), options, address)
        delete_collection(address, options)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say whether the bank's contract met a real server."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    ran = [report.nodeid for report in reports if "test_memory_bank_contract.py" in report.nodeid]
    if ran:
        num_real = sum("[weaviate]" in name or "[weaviate-" in name for name in ran)
        on_double = f"on a double of Weaviate only; ${URL} or ${BINARY} gives it a real server"
        met = f"{num_real} tests on a real Weaviate server" if num_real else on_double
        terminalreporter.write_line(f"memory bank contract: {met}")
