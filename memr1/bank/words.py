"""How texts fall into words, for every word-based ranking of a bank."""

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+")


class WordCounts(NamedTuple):
    """How often each word stands in a text, and the number of words. Shared by all callers: do not change it."""

    counts: Mapping[str, int]
    length: int


def split_words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case, in order: "Marta's 2nd dog" → marta, s, 2nd, dog."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=32_768)
def count_words(text: str) -> WordCounts:
    """The words of a text, counted once and remembered: ranking asks for the same texts again and again."""
    words = split_words(text)
    return WordCounts(dict(Counter(words)), len(words))
