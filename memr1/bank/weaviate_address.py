"""Where the Weaviate server is, from the environment: $WEAVIATE_URL, $WEAVIATE_GRPC_URL, $WEAVIATE_API_KEY."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from memr1.errors import ConfigError

URL, GRPC_URL, API_KEY = "WEAVIATE_URL", "WEAVIATE_GRPC_URL", "WEAVIATE_API_KEY"
EMBEDDED = "embedded"
GRPC_PORT = 50051
ADVICE = (
    "`docker compose up -d weaviate` starts a server at http://127.0.0.1:8080; with the word embedded the Weaviate "
    "client downloads and starts one"
)


@dataclass(frozen=True)
class Endpoint:
    """One of the two ports of a server."""

    host: str
    port: int
    secure: bool

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.host}:{self.port}"


@dataclass(frozen=True)
class WeaviateAddress:
    """Both ports, and the key that the server asks for (empty: none)."""

    http: Endpoint
    grpc: Endpoint
    api_key: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.http} (gRPC {self.grpc})"


def read_address(environ: Mapping[str, str]) -> WeaviateAddress | None:
    """The server that the environment names; None for the client's embedded one. Raises ConfigError.

    gRPC is at the same host and of the same scheme, port 50051, unless $WEAVIATE_GRPC_URL says otherwise.
    """
    url = environ.get(URL, "").strip()
    if url == EMBEDDED:
        return None
    http = _parse(URL, url, None)
    grpc_url = environ.get(GRPC_URL, "").strip()
    grpc = _parse(GRPC_URL, grpc_url, GRPC_PORT) if grpc_url else Endpoint(http.host, GRPC_PORT, http.secure)
    if (http.host, http.port) == (grpc.host, grpc.port):
        raise ConfigError(
            f"${URL} and ${GRPC_URL} are both {http}: a server has two ports, set ${GRPC_URL} to the other"
        )
    return WeaviateAddress(http, grpc, environ.get(API_KEY, "").strip())


def _parse(name: str, url: str, default_port: int | None) -> Endpoint:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ConfigError(f"${name} is {url!r}: set it to an address such as http://127.0.0.1:8080. {ADVICE}")
    secure = parts.scheme == "https"
    return Endpoint(parts.hostname, port or default_port or (443 if secure else 80), secure)
