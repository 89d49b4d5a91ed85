"""Leaves out the training examples whose prompt is too long, and keeps a list of them."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from memr1.errors import TrainingError
from memr1.records import Record, write_jsonl

log = logging.getLogger(__name__)
LIST_NAME = "too_long.jsonl"


class TooLong(Record):
    """An example that was left out, and the length of its prompt, chat template included."""

    id: str
    num_tokens: int


def leave_out_long_prompts(
    examples: Sequence[dict[str, str]], count_tokens: Callable[[str], int], max_tokens: int | None
) -> tuple[list[dict[str, str]], list[TooLong]]:
    """The examples of at most `max_tokens` (None: all of them), and the others.

    A prompt is never cut: its instructions stand at its beginning, its question or turn at its end, and a memory taken
    out of its middle would change what the right output is. Raises TrainingError when nothing is left.
    """
    if max_tokens is None:
        return list(examples), []
    lengths = {item["id"]: count_tokens(item["prompt"]) for item in examples}
    kept = [item for item in examples if lengths[item["id"]] <= max_tokens]
    left_out = [TooLong(id=key, num_tokens=length) for key, length in lengths.items() if length > max_tokens]
    if examples and not kept:
        raise TrainingError(
            f"every prompt is longer than training.max_prompt_tokens = {max_tokens} (the shortest has "
            f"{min(lengths.values())} tokens): raise it, or lower retrieval.entries_per_turn or entries_per_speaker"
        )
    return kept, left_out


def list_left_out(left_out: Sequence[TooLong], num_examples: int, folder: Path) -> None:
    """Say how many examples were left out, and write which."""
    if not left_out:
        return
    path = folder / LIST_NAME
    write_jsonl(path, left_out)
    longest = max(item.num_tokens for item in left_out)
    log.warning(
        "%d of %d examples left out: their prompts have up to %d tokens, more than training.max_prompt_tokens; see %s",
        len(left_out), num_examples, longest, path,
    )  # fmt: skip
