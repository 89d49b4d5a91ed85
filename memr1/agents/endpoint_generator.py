"""Any OpenAI-compatible server (vLLM, llama.cpp, a hosted model): `POST {url}/chat/completions`, many at once.

Refused and broken requests are repeated with growing pauses, or the pause that the server asks for. What the server
calls the caller's mistake (400, 401, 404 …) is not repeated, and ends the requests that have not begun.
"""

import logging
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from memr1.errors import GenerationFailed

log = logging.getLogger(__name__)
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0
REPEATED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
ADVICE = {
    401: "set $MEMR1_ENDPOINT_KEY",
    403: "set $MEMR1_ENDPOINT_KEY to a key that may use this model",
    404: "check $MEMR1_ENDPOINT_URL (it mostly ends in /v1) and the model's name",
}


class EndpointGenerator:
    """See `memr1.agents.generation.Generator`."""

    def __init__(
        self,
        model: str,
        *,
        url: str,
        key: str = "",
        timeout_seconds: float = 60.0,
        num_retries: int = 4,
        concurrency: int = 8,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        """`url` is the server's base address (http://localhost:8000/v1), `timeout_seconds` the limit of one request."""
        self.name = model
        self._url = url.rstrip("/") + "/chat/completions"
        self._timeout_seconds = timeout_seconds
        self._num_retries = num_retries
        self._concurrency = concurrency
        self._first_pause_seconds = first_pause_seconds
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._client = httpx.Client(headers=headers, timeout=timeout_seconds, limits=limits)

    def sample_texts(self, prompts: Sequence[str], *, max_new_tokens: int, temperature: float = 0.0) -> list[str]:
        """One completion per prompt, in order, whatever the order in which the server answers.

        Equal prompts are asked once when decoding is greedy. Raises GenerationFailed when a prompt got no text.
        """
        wanted = list(dict.fromkeys(prompts)) if temperature == 0 else list(prompts)
        bodies = [self._body(prompt, max_new_tokens, temperature) for prompt in wanted]
        given_up = threading.Event()
        with ThreadPoolExecutor(max(1, min(self._concurrency, len(bodies)))) as pool:
            waiting = [pool.submit(self._ask, body, given_up) for body in bodies]
            try:
                texts = [future.result() for future in waiting]
            except BaseException:  # also Ctrl-C: the pool must not go on asking while its block ends
                given_up.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if temperature != 0:
            return texts
        by_prompt = dict(zip(wanted, texts, strict=True))
        return [by_prompt[prompt] for prompt in prompts]

    def _body(self, prompt: str, max_new_tokens: int, temperature: float) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": self.name, "messages": messages, "max_tokens": max_new_tokens, "temperature": temperature}

    def _ask(self, body: dict[str, Any], given_up: threading.Event) -> str:
        """The text for one prompt, after as many attempts as it takes."""
        num_attempts = 0
        while True:
            reply = self._post(body)
            num_attempts += 1
            if isinstance(reply, str):
                return reply
            if reply.is_final or num_attempts > self._num_retries or self._pause(num_attempts, reply, given_up):
                raise GenerationFailed(
                    f"{self._url} gave no text for model {self.name!r} in {num_attempts} attempt(s): {reply.reason}. "
                    f"{reply.advice}"
                )

    def _pause(self, num_attempts: int, reply: "_Refusal", given_up: threading.Event) -> bool:
        """Wait before the next attempt; True when it is no longer wanted."""
        grown = self._first_pause_seconds * 2 ** (num_attempts - 1) * random.uniform(0.75, 1.25)
        seconds = min(max(grown, reply.pause_seconds), LONGEST_PAUSE_SECONDS)
        log.info("%s: %s; asking again in %.1f s", self._url, reply.reason, seconds)
        return given_up.wait(seconds)

    def _post(self, body: dict[str, Any]) -> "str | _Refusal":
        try:
            return _read_reply(self._client.post(self._url, json=body))
        except httpx.TimeoutException:
            advice = "Raise timeout_seconds of this model's section, or lower its concurrency."
            return _Refusal(f"no answer within {self._timeout_seconds:g} s", advice=advice)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _Refusal(f"{type(error).__name__}: {error}", advice="Is the server running at $MEMR1_ENDPOINT_URL?")


class _Refusal:
    """Why an attempt gave no text, how long the server wants to be left alone, and whether asking again is vain."""

    def __init__(self, reason: str, *, pause_seconds: float = 0.0, is_final: bool = False, advice: str = "") -> None:
        self.reason, self.pause_seconds, self.is_final = reason, pause_seconds, is_final
        self.advice = advice or "Look into the server's log."


def _read_reply(response: httpx.Response) -> str | _Refusal:
    status = response.status_code
    if not response.is_success:
        return _Refusal(
            f"status {status}, {response.text[:200]!r}",
            pause_seconds=_asked_pause(response.headers.get("Retry-After", "")),
            is_final=status not in REPEATED_STATUS,
            advice=ADVICE.get(status, ""),
        )
    try:
        text = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return _Refusal(f"not a chat completion: {response.text[:200]!r}")
    if not isinstance(text, str):
        return _Refusal(f"a completion without text: {response.text[:200]!r}", advice="Raise max_new_tokens.")
    return text


def _asked_pause(retry_after: str) -> float:
    """Seconds of a Retry-After header, which is a number or a date; 0 for neither."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until.tzinfo else 0.0
