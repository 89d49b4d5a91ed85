"""What is measured and tried, written once for both libraries."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from stub import (
    OpenSide,
    RememberingEmbedder,
    Side,
    StubModel,
    add_what_is_new,
    babble,
    queries,
    sentences,
    update_what_is_shown,
)

USER, FOUND = "marta", 20  # memories that a search asks for: mem0's number
AT_ONCE = 4
Seconds = dict[str, float]
LISBON, ROME = "Marta lives in Lisbon", "Marta lives in Rome"


class Tasks:
    """One library at work. Every task begins with a new memory, except where it says otherwise."""

    def __init__(self, open_side: OpenSide, folder: Path) -> None:
        self._open_side = open_side
        self._folder = folder
        self._num_opened = 0
        self._searched: tuple[Side, int] | None = None  # the memory that searches grow, and its size

    def adds(self, number: int) -> Seconds:
        """One user, one text after another; the model is asked about each. With the work that was given away."""
        model, embedder, side = self._begin()
        spent = clock(lambda: [side.add(USER, text) for text in sentences(0, number)])
        assert len(side.texts(USER)) == number, "an add was lost"
        side.close()
        given = {"model_calls": model.num_calls, "texts_embedded": embedder.num_computed}
        return spent | {name: count / number for name, count in given.items()}

    def adds_without_model(self, number: int) -> Seconds:
        side = self._begin()[2]
        spent = clock(lambda: [side.add_raw(USER, text) for text in sentences(0, number)])
        assert len(side.texts(USER)) == number, "an add was lost"
        side.close()
        return spent

    def adds_of_many_users(self, number: int, users: int) -> Seconds:
        side = self._begin()[2]
        texts = {f"user-{n}": sentences(n * number // users, (n + 1) * number // users) for n in range(users)}
        spent = clock(lambda: side.add_conversations(texts))
        assert all(sorted(side.texts(user)) == sorted(texts[user]) for user in texts), "an add was lost"
        side.close()
        return spent

    def grow(self, size: int) -> None:
        """Fill the searched memory up to a size, and search once: what a library prepares is not measured."""
        side, filled = self._searched or (self._begin()[2], 0)
        side.fill(USER, sentences(filled, size))
        side.search(USER, queries(1)[0], FOUND)
        self._searched = side, size

    def search(self, start: int, end: int) -> list[Seconds]:
        """What each query takes in the memory that `grow` has filled."""
        assert self._searched, "grow first"
        side = self._searched[0]
        return [clock(lambda q=query: side.search(USER, q, FOUND)) for query in queries(end)[start:]]

    def peak_memory(self) -> float:
        """MiB that this process has had resident at most."""
        status = Path("/proc/self/status").read_text()
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kib) / 1024

    def malformed(self) -> dict[str, object]:
        """The model says something in prose."""
        model, _, side = self._begin()
        model.policy = babble
        raised = _raised(lambda: side.add(USER, LISBON))
        kept = [text for text in side.unreadable_outputs(USER) if LISBON in text]
        found = {"raised": raised, "num_kept": len(kept), "num_entries": len(side.texts(USER))}
        side.close()
        return found

    def at_once(self) -> dict[str, object]:
        """Four threads add the same text, by a model that adds what it is not shown.

        It answers once all four have asked it, or after a while: a library may let them take turns."""
        model, _, side = self._begin()
        barrier = threading.Barrier(AT_ONCE)
        model.policy = add_what_is_new
        model.wait = lambda: _wait(barrier)
        errors: list[str] = []

        def add() -> None:
            errors.append(_raised(lambda: side.add(USER, LISBON)))

        threads = [threading.Thread(target=add) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        errors.append(_raised(side.close))
        return {"errors": [error for error in errors if error], "reopened": self._reopen()}

    def one_after_another(self) -> int:
        """The same four adds, one after another: entries afterwards."""
        model, _, side = self._begin()
        model.policy = add_what_is_new
        for _ in range(AT_ONCE):
            side.add(USER, LISBON)
        num_entries = len(side.texts(USER))
        side.close()
        return num_entries

    def contradiction(self) -> list[str]:
        """What is remembered after a fact and its successor, by a model that updates what it is shown."""
        model, _, side = self._begin()
        model.policy = update_what_is_shown
        side.add(USER, LISBON)
        side.add(USER, ROME)
        texts = side.texts(USER)
        side.close()
        return texts

    def deletion(self) -> bool:
        """Whether a deleted text is gone from search, at once and after opening the memory again."""
        side = self._begin()[2]
        for text in (LISBON, ROME):
            side.add_raw(USER, text)
        assert LISBON in side.search(USER, LISBON, FOUND), "not found before it was deleted"
        side.delete(USER, LISBON)
        at_once = side.search(USER, LISBON, FOUND)
        side.close()
        side = self._open()
        later = side.search(USER, LISBON, FOUND)
        side.close()
        return at_once == later == [ROME]

    def add_until_killed(self, folder: str, acknowledge: Callable[[str], None]) -> None:
        """Acknowledge every text once `add` has returned."""
        side = self._open_side(Path(folder), StubModel(), RememberingEmbedder())
        for text in sentences(0, 1_000_000):
            side.add(USER, text)
            acknowledge(text)

    def read(self, folder: str) -> list[str]:
        """What a memory holds that another process has left behind."""
        side = self._open_side(Path(folder), StubModel(), RememberingEmbedder())
        texts = side.texts(USER)
        side.close()
        return texts

    def _begin(self) -> tuple[StubModel, RememberingEmbedder, Side]:
        self._num_opened += 1
        model, embedder = StubModel(), RememberingEmbedder()
        return model, embedder, self._open(model, embedder)

    def _open(self, model: StubModel | None = None, embedder: RememberingEmbedder | None = None) -> Side:
        """The memory of the present task."""
        folder = self._folder / f"memory {self._num_opened}"
        return self._open_side(folder, model or StubModel(), embedder or RememberingEmbedder())

    def _reopen(self) -> list[str] | str:
        """What the present task's memory holds when it is opened again, or why it cannot be."""
        held: list[str] = []

        def read() -> None:
            side = self._open()
            held.extend(side.texts(USER))
            side.close()

        return _raised(read) or held


def clock(work: Callable[[], object]) -> Seconds:
    """On the wall, and of all threads of this process on a processor."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def _wait(barrier: threading.Barrier) -> None:
    """For the others, unless the library lets no two of them in at once."""
    try:
        barrier.wait(timeout=5)
    except threading.BrokenBarrierError:
        pass


def _raised(work: Callable[[], object]) -> str:
    """The error that the work ended with, or nothing."""
    try:
        work()
    except Exception as error:  # noqa: BLE001  whatever a library raises is the finding
        return f"{type(error).__name__}: {error}"
    return ""
