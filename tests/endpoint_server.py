"""An OpenAI-compatible server on loopback that a test may make refuse, break, hang or answer what it likes."""

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["Handler", str, int], bool]  # (handler, prompt, attempt) → whether it has answered


class Handler(BaseHTTPRequestHandler):
    """Answers "echo <prompt>" unless a fault answers first."""

    server: "Server"
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.add(self.headers.get("Authorization", ""))
            self.server.asked[prompt] += 1
            attempt = self.server.asked[prompt]
        if self.path != "/v1/chat/completions":
            self.reply(404, {"error": {"message": f"no {self.path}"}})
        elif not any(fault(self, prompt, attempt) for fault in self.server.faults):
            self.reply(200, completion(f"echo {prompt}"))

    def reply(self, status: int, body: Any, **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except BrokenPipeError:
            self.close_connection = True  # the client has given up waiting: that is what some tests want

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Keeps what it was asked."""

    daemon_threads = True

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = faults
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


def completion(text: str | None) -> dict[str, Any]:
    """The body of an answer."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


@contextmanager
def serving(*faults: Fault) -> Iterator[Server]:
    """A server whose requests the first fault that wants to answers; "echo <prompt>" otherwise."""
    server = Server(faults)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
