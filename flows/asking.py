"""`memr1 ask`: one question to a finished run's pair, with what it remembered."""

import sys
from pathlib import Path

from memr1.console import show_on_terminal
from memr1.environment import embedding_cache, set_hub_default
from memr1.run_dir import RunDir
from memr1.run_start import names_hub_model, read_config


def answer_on_terminal(root: Path, conversation_id: str, question: str) -> None:
    """Print the answer to standard output, the memories behind it to standard error."""
    show_on_terminal()
    run = RunDir(root)
    config = read_config(run)
    set_hub_default(names_hub_model(config))
    from memr1.agents.asking import answer_question

    asked = answer_question(run, config, conversation_id, question, embedding_cache())
    if asked.answer.failure is not None:
        sys.stderr.write(f"the Answer Agent's output cannot be read as an answer: {asked.answer.failure[:300]}\n")
    print(asked.answer.text or "(no answer)", flush=True)
    sys.stderr.write(f"\nmemories used ({len(asked.used)} of {len(asked.retrieved)} retrieved):\n")
    for entry in asked.used:
        sys.stderr.write(
            f"  {entry.time:%Y-%m-%d}  {entry.speaker}: {entry.text}  (turns {', '.join(entry.turn_ids)})\n"
        )
