"""The tokeniser of both agents: byte-level BPE over invented words and the world's templates, never over real names.

With real training names in it, those would be one piece each and the names of the test set four: the agents would
learn to remember pieces in place of copying them. And no merge holds a space, so that a word has the same pieces
wherever it stands: " Marta" is one more piece than "Marta", not another one.
"""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from memr1.data.synthetic_relations import list_templates
from memr1.tiny.forms import single_pieces
from memr1.tiny.invented import invent_word

PAD, END, MARKER = "<|pad|>", "<|end|>", "<|assistant|>"
NUM_INVENTED_WORDS = 20_000

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}" + MARKER + "{{ message['content'] }}" + END + ""
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + MARKER + "{% endif %}"
)


def write_tokenizer(folder: Path, vocabulary_size: int, seed: int) -> None:
    """Train the tokeniser and save it as a Hugging Face folder.

    It splits text as Qwen2's does: transformers loads the tokeniser of every model of type qwen2 with those rules,
    whatever its files say.
    """
    pieces = single_pieces()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(pieces),
        special_tokens=[PAD, END, MARKER],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(random.Random(seed)), trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    untyped: Any = Qwen2Tokenizer
    qwen = untyped(
        trained["vocab"],
        [tuple(merge) for merge in trained["merges"]],
        unk_token=PAD,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    qwen.add_tokens([AddedToken(MARKER, special=True), *(AddedToken(piece, normalized=False) for piece in pieces)])
    qwen.chat_template = CHAT_TEMPLATE
    qwen.save_pretrained(folder)


def _corpus(rng: random.Random) -> Iterator[str]:
    for number in range(NUM_INVENTED_WORDS):
        yield invent_word(rng, capital=number % 2 == 0)
    for template in list_templates():
        yield from re.findall(r"\w+", template)
