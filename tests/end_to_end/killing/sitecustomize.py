"""Plants a kill at one exact moment of a training. Python runs this at its start where this folder is on the path.

$MEMR1_TEST_KILL is "event path count": at the count-th audit event of this name whose path ends so, and before what it
announces, rank 0 sends SIGKILL to the process that launched the training, to torchrun and to itself.
"""

import os
import signal
import sys


def plant_kill(event: str, ending: str, count: int) -> None:
    """Python announces that a file is opened, and in which mode, or renamed."""
    left = count

    def watch(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if name != event or not any(str(argument).endswith(ending) for argument in arguments[:2]):
            return
        if event == "open" and arguments[1] not in ("a", "w", "wb"):
            return
        left -= 1
        if left == 0:
            for process in (int(os.environ["MEMR1_PARENT_PID"]), os.getppid(), os.getpid()):
                os.kill(process, signal.SIGKILL)

    sys.addaudithook(watch)


if os.environ.get("MEMR1_TEST_KILL") and os.environ.get("RANK") == "0":
    words = os.environ["MEMR1_TEST_KILL"].split()
    plant_kill(words[0], words[1], int(words[2]))
