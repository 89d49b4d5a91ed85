"""Invented words: what the tokeniser is trained on, and most of the names and values in the demonstrations.

A word that was seen in training is one or two pieces and easily remembered; an unseen one is three or four and must be
copied. With invented words the agents cannot tell the two apart, so they learn to copy.
"""

import random

_ONSETS = (
    "b c d f g h j k l m n p r s t v w y z b c d f g h j k l m n p r s t v w br cl cr dr fl fr gl gr kr pl pr sl "
    "st tr ch sh th qu sc sp"
).split()
_VOWELS = "a e i o u a e i o u a e i o ai ea ee ia io ie oo ou".split()
_CODAS = "n r l s t m d n r l s k p x th ng ck nd st rt ll ss".split()
_DOUBLED = "bb cc dd ff gg ll mm nn pp rr ss tt zz".split()  # "Otto" must be no surprise
MAX_LETTERS = 8
MAX_LONG_LETTERS = 14


def invent_word(rng: random.Random, *, capital: bool, max_letters: int = MAX_LETTERS) -> str:
    """A word of 3 to `max_letters` letters that can be spoken."""
    more = (0, 1, 1, 1, 2) if max_letters <= MAX_LETTERS else (0, 1, 1, 2, 2, 3)
    while True:
        word = rng.choice(_ONSETS) + rng.choice(_VOWELS)
        for _ in range(rng.choice(more)):
            word += rng.choice(_DOUBLED if rng.random() < 0.2 else _ONSETS) + rng.choice(_VOWELS)
        word += rng.choice((*_CODAS, *[""] * 7))
        word = rng.choice("aeiou") + word if rng.random() < 0.1 else word
        if 3 <= len(word) <= max_letters:
            return word.capitalize() if capital else word
