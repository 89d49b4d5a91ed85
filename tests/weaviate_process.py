"""A real Weaviate server for tests: the one at $WEAVIATE_URL, or a process of the binary at $WEAVIATE_BINARY."""

import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from memr1.bank.weaviate_address import URL, Endpoint, WeaviateAddress, read_address
from memr1.config import WeaviateBank
from tests.processes import wait_until

BINARY = "WEAVIATE_BINARY"
START_SECONDS = 120.0


def has_real_weaviate() -> bool:
    """Whether the environment names a server or its binary."""
    return bool(os.environ.get(URL) or os.environ.get(BINARY))


@contextmanager
def real_weaviate(folder: Path) -> Iterator[WeaviateAddress]:
    """The server of the environment, or one that runs while inside, with its data in `folder`."""
    if os.environ.get(URL):
        address = read_address(os.environ)
        assert address is not None, f"${URL} must be an address here"
        yield address
        return
    with running_weaviate(folder) as process:
        yield process.address


@contextmanager
def running_weaviate(folder: Path) -> Iterator["WeaviateProcess"]:
    """A server process that is ready, and gone afterwards."""
    process = WeaviateProcess(Path(os.environ[BINARY]), folder)
    process.start()
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.kill()


def delete_collection(address: WeaviateAddress, options: WeaviateBank) -> None:
    """Remove what a test has left on a server."""
    from memr1.bank.weaviate_bank import build_connection

    async def delete(client: Any) -> None:
        await client.collections.delete(options.collection)

    with closing(build_connection(address, options)) as connection:
        connection.call(delete)


class WeaviateProcess:
    """One server on loopback. It may be killed and started again with the same data and ports."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary, self._folder = binary, folder
        http, grpc, self._profiling = (free_port() for _ in range(3))
        self._gossip, self._raft = (free_port_before_a_free_one() for _ in range(2))
        self.address = WeaviateAddress(Endpoint("127.0.0.1", http, False), Endpoint("127.0.0.1", grpc, False))

    def start(self) -> None:
        """Start without waiting."""
        ports = {
            "GRPC_PORT": self.address.grpc.port,
            "CLUSTER_GOSSIP_BIND_PORT": self._gossip,
            "CLUSTER_DATA_BIND_PORT": self._gossip + 1,
            "RAFT_PORT": self._raft,
            "RAFT_INTERNAL_RPC_PORT": self._raft + 1,
            "PROFILING_PORT": self._profiling,
        }
        environ = {
            "PERSISTENCE_DATA_PATH": str(self._folder / "data"),
            "DEFAULT_VECTORIZER_MODULE": "none",
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
            "CLUSTER_HOSTNAME": "node1",
            "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
            "CLUSTER_IN_LOCALHOST": "true",
            "RAFT_JOIN": f"node1:{self._raft}",
            "RAFT_BOOTSTRAP_EXPECT": "1",
            "DISABLE_TELEMETRY": "true",
            "PROMETHEUS_MONITORING_ENABLED": "false",
            **{name: str(port) for name, port in ports.items()},
        }
        command = [self._binary, "--host", "127.0.0.1", "--port", str(self.address.http.port), "--scheme", "http"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **environ}, stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        """An AssertionError after two minutes."""
        wait_until(self._is_ready, START_SECONDS)

    def kill(self) -> None:
        """SIGKILL; it has ended afterwards."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "server.log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{self.address.http}/v1/.well-known/ready", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def free_port() -> int:
    """A port of this machine that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def free_port_before_a_free_one() -> int:
    """On one machine a server wants its data port right behind the gossip port, and its RPC port behind Raft's."""
    while True:
        port = free_port()
        try:
            socket.create_server(("127.0.0.1", port + 1)).close()
        except OSError:
            continue
        return port
