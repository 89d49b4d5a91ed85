"""A headless Chromium that a test drives through the DevTools protocol, over a pair of pipes."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FROM_US, TO_US = 3, 4  # the file descriptors that --remote-debugging-pipe reads and writes
PATIENCE_SECONDS = 120
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Enter": 13}


class Chromium:
    """One page. `requests` has the address of everything that it has asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        self.requests: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, path: Path, *, width: int = 1280, height: int = 900, is_dark: bool = False, hash_: str = "") -> None:
        """Load a file into a window of this size and wait until it is there."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        for address in ("about:blank", path.resolve().as_uri() + hash_):  # another hash alone would load nothing
            self._events.clear()
            self._ask("Page.navigate", url=address)
            while not any(event["method"] == "Page.loadEventFired" for event in self._events):
                self._read()

    def value(self, script: str) -> Any:
        """What an expression gives in the page. An exception there is an AssertionError here."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def seconds(self, script: str) -> float:
        """Processor time of the page for an expression and the layout after it, however busy the machine is."""
        self._ask("Performance.enable", timeDomain="threadTicks")
        before = self._busy_seconds()
        self.value(f"{script}; document.body.offsetHeight")
        return self._busy_seconds() - before

    def press(self, key: str) -> None:
        """Press a key where the focus is, as a keyboard does."""
        for kind in ("rawKeyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def click(self, selector: str) -> None:
        """Click with the mouse on the middle of the first element that matches."""
        find = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{find}.scrollIntoView({{block: 'nearest'}})")
        where = self.value(f"{find}.getBoundingClientRect().toJSON()")
        place = {"x": where["x"] + where["width"] / 2, "y": where["y"] + where["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def complaints(self) -> list[str]:
        """Exceptions and error messages of the page that was opened last."""
        exceptions = [e["params"] for e in self._events if e["method"] == "Runtime.exceptionThrown"]
        entries = [e["params"]["entry"] for e in self._events if e["method"] == "Log.entryAdded"]
        return [str(item) for item in exceptions + [entry for entry in entries if entry["level"] == "error"]]

    def photograph(self, path: Path) -> None:
        """Write the window as a PNG."""
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """Ask the browser to end."""
        self._session = None
        self._ask("Browser.close")

    def _busy_seconds(self) -> float:
        metrics = self._ask("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            is_there = bool(select.select([self._in], [], [], PATIENCE_SECONDS)[0])
            assert is_there, f"Chromium has said nothing for {PATIENCE_SECONDS} seconds"
            data = os.read(self._in, 1 << 16)
            assert data, "Chromium has ended"
            self._unread += data
        line, self._unread = self._unread.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self._events.append(message)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message


@contextmanager
def open_chromium(profile: Path) -> Iterator[Chromium]:
    """A browser with an empty profile in this folder. Skips the test where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine (Debian and Ubuntu: apt install chromium)")
    their_end, to_browser = os.pipe()
    from_browser, our_end = os.pipe()

    def place_pipes() -> None:  # in the child: first out of the way, since 3 and 4 may be taken by any of them
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (their_end, our_end)]
        os.dup2(ends[0], FROM_US)
        os.dup2(ends[1], TO_US)

    process = subprocess.Popen(
        [
            program, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
        ],
        preexec_fn=place_pipes,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_end)
    os.close(our_end)
    browser = None
    try:
        browser = Chromium(to_browser, from_browser)
        yield browser
    finally:
        try:
            if browser is not None:
                browser.close()
                process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
            os.close(to_browser)
            os.close(from_browser)
