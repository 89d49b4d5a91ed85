"""One library in a process of its own: a task per line of stdin (JSON), its result as a line of stdout.

python worker.py mem0|memr1 FOLDER
"""

import json
import logging
import sys
from pathlib import Path

from tasks import Tasks


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    replies, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not be taken for a result
    logging.basicConfig(level=logging.ERROR)
    if name == "mem0":
        from mem0_side import Mem0Side as Opened
    else:
        from memr1_side import Memr1Side as Opened

    def reply(value: object) -> None:
        print(json.dumps(value), file=replies, flush=True)

    tasks = Tasks(Opened, folder)
    for line in sys.stdin:
        wanted = json.loads(line)
        options = wanted["options"]
        if wanted["task"] == "add_until_killed":
            options["acknowledge"] = reply
        reply(getattr(tasks, wanted["task"])(**options))


if __name__ == "__main__":
    main()
