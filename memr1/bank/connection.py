"""A connection to a server that may be lost and come back. Every call is bounded, whatever the server's client repeats
on its own, and the call after a failure makes a new connection: an old one may take minutes to notice that its server
is back.

Calls run on one event loop in a thread of its own, since a task can be cancelled and a thread cannot.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

from memr1.errors import BankError, BankUnavailable

log = logging.getLogger(__name__)
PROBE_SECONDS = 2.0  # for a server to say that it is ready
PAUSE_SECONDS = 0.5  # between two probes
Result = TypeVar("Result")


class AsyncClient(Protocol):
    """What is asked of a server's client."""

    async def is_ready(self) -> bool:
        """Whether the server takes requests."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


Client = TypeVar("Client", bound=AsyncClient)


class Connection(Generic[Client]):
    """Calls a server. The calls of several threads take turns."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Client]],
        failures: tuple[type[Exception], ...],
        explain: Callable[[Exception], BankError],
        *,
        timeout_seconds: float,
        wait_seconds: float,
    ) -> None:
        """`connect` makes a client; what of `failures` it or a call raises becomes the error that `explain` gives."""
        self._connect, self._explain = connect, explain
        self._failures: tuple[type[Exception], ...] = (*failures, TimeoutError, OSError)
        self._timeout_seconds, self._wait_seconds = timeout_seconds, wait_seconds
        self._in_turn = threading.RLock()
        self._client: Client | None = None
        self._lost_since: float | None = None  # beginning of the first call that failed since one succeeded

    def call(
        self, action: Callable[[Client], Coroutine[Any, Any, Result]], timeout_seconds: float | None = None
    ) -> Result:
        """What `action` gives, within the limit. Raises BankError."""
        with self._in_turn:
            started = time.monotonic()
            try:
                result = _run(asyncio.wait_for(self._perform(action), timeout_seconds or self._timeout_seconds))
            except self._failures as error:
                self._lost_since = self._lost_since or started
                self.close()
                raise self._explain(error) from error
            self._lost_since = None
            return result

    def wait(self) -> None:
        """Until the server is ready. Raises BankUnavailable `wait_seconds` after it was lost; from then on at once."""
        deadline = (self._lost_since or time.monotonic()) + self._wait_seconds
        told = False
        while (error := self._probe()) is not None:
            if time.monotonic() + PAUSE_SECONDS >= deadline:
                raise error
            if not told:
                log.warning("%s Waiting for it, %.0f s at most", error, deadline - time.monotonic())
            told = True
            time.sleep(PAUSE_SECONDS)

    def close(self) -> None:
        """Let go of it; the next call connects again."""
        with self._in_turn:
            client, self._client = self._client, None
            if client is not None:
                _run(client.close())

    def _probe(self) -> BankUnavailable | None:
        try:
            self.call(_check_ready, PROBE_SECONDS)
        except BankUnavailable as error:
            return error
        return None

    async def _perform(self, action: Callable[[Client], Awaitable[Result]]) -> Result:
        if self._client is None:
            self._client = await self._connect()
        return await action(self._client)


async def _check_ready(client: AsyncClient) -> None:
    if not await client.is_ready():
        raise ConnectionError("it is not ready yet")


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="connections", daemon=True).start()
    return loop


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()
