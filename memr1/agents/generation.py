"""The door to a language model: prompts in, texts out."""

from collections.abc import Callable, Sequence
from typing import Protocol

from memr1.errors import GenerationFailed


class Generator(Protocol):
    """Anything that continues prompts. Implementations raise GenerationFailed, never return None."""

    name: str

    def sample_texts(self, prompts: Sequence[str], *, max_new_tokens: int, temperature: float = 0.0) -> list[str]:
        """One completion per prompt, in order. Temperature 0 is greedy decoding."""
        ...


class ScriptedGenerator:
    """The public fake: a function from prompt to completion, or a fixed list of completions given in turn."""

    name = "scripted"

    def __init__(self, script: Callable[[str], str] | Sequence[str]) -> None:
        self.prompts: list[str] = []
        self._reply = script if callable(script) else _in_turn(script)

    def sample_texts(self, prompts: Sequence[str], *, max_new_tokens: int, temperature: float = 0.0) -> list[str]:
        self.prompts.extend(prompts)
        return [self._reply(prompt) for prompt in prompts]


def _in_turn(replies: Sequence[str]) -> Callable[[str], str]:
    left = iter(replies)

    def reply(prompt: str) -> str:
        for text in left:
            return text
        raise GenerationFailed(f"the script's {len(replies)} replies are used up: give it one for {prompt[:80]!r} too")

    return reply
