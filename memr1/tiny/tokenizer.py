"""The tokeniser of both agents: byte-level BPE over the world's templates and invented words, never over real ones.

With real training names in it, those would be one piece each and the names of the test set four: the agents would
learn to remember pieces in place of copying them.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from memr1.data.synthetic_relations import RELATIONS, SMALL_TALK
from memr1.tiny.forms import single_pieces
from memr1.tiny.invented import invent_word

PAD, END, MARKER = "<|pad|>", "<|end|>", "<|assistant|>"
NUM_INVENTED_WORDS = 20_000
TEMPLATE_REPEATS = 60  # so that the words of the templates outweigh the syllables of invented ones

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}" + MARKER + "{{ message['content'] }}" + END + ""
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + MARKER + "{% endif %}"
)


def write_tokenizer(folder: Path, vocabulary_size: int, seed: int) -> None:
    """Train the tokeniser and save it as a Hugging Face folder."""
    pieces = single_pieces()
    tokenizer = Tokenizer(models.BPE())
    # A word gets the same pieces everywhere: also after `"`, where no space stands. The decoder takes it out again.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace('":" ', '":"')])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(pieces),
        special_tokens=[PAD, END, MARKER],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(random.Random(seed)), trainer)
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in pieces])
    untyped: Any = PreTrainedTokenizerFast
    fast = untyped(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def _corpus(rng: random.Random) -> Iterator[str]:
    for number in range(NUM_INVENTED_WORDS):
        yield invent_word(rng, capital=number % 2 == 0)
    sentences = [re.sub(r"\{\w+\}|[\[\]|]", " ", template) for template in _templates()]
    for _ in range(TEMPLATE_REPEATS):
        yield from sentences


def _templates() -> Iterator[str]:
    for relation in RELATIONS:
        for kind in (relation.new, relation.change, relation.removal, relation.repeat, relation.ask):
            yield from kind
        yield relation.ask_former
    yield from SMALL_TALK
