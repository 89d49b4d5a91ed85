"""How an answer is scored: pure functions of (prediction, gold), each in [0, 1].

`mem0_f1`, `bleu1` and `exact_match` follow Mem0's evaluation code, which Memory-R1's group uses unchanged; `locomo_f1`
follows LoCoMo's own. They differ in tokens, stemming and counting, so their values must never be compared.
Left out: LLM judges (they are not pure).

nltk brings the tokeniser and the stemmer. Importing it takes seconds, so it happens at the first BLEU or LoCoMo score;
the training reward needs neither.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

LOCOMO_CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}

_MEM0_PUNCTUATION = str.maketrans(dict.fromkeys(".,!?", " "))
_ALL_PUNCTUATION = str.maketrans("", "", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_LOCOMO_ARTICLES = re.compile(r"\b(a|an|the|and)\b")


def mem0_f1(prediction: Any, gold: Any) -> float:
    """F1 of the two *sets* of lowercase words. `. , ! ?` separate words, other marks stay; empty text scores 0."""
    predicted, wanted = set(_split_mem0(prediction)), set(_split_mem0(gold))
    return _f1(len(predicted & wanted), len(predicted), len(wanted))


def bleu1(prediction: Any, gold: Any) -> float:
    """Clipped unigram precision times brevity penalty, on lowercase Treebank tokens. Empty text scores 0.

    The same number as nltk's sentence_bleu with weights (1, 0, 0, 0) and smoothing method 1. Text is tokenised as one
    sentence: Mem0 splits sentences first, with a model that must be downloaded, which changes only the full stops
    inside an answer of several sentences.
    """
    if not str(prediction).strip() or not str(gold).strip():
        return 0.0
    tokenize = _word_tokenizer()
    predicted, wanted = tokenize(str(prediction).strip().lower()), tokenize(str(gold).strip().lower())
    num_same = (Counter(predicted) & Counter(wanted)).total()
    brevity_penalty = min(1.0, math.exp(1 - len(wanted) / len(predicted)))
    return brevity_penalty * num_same / len(predicted)


def exact_match(prediction: Any, gold: Any) -> float:
    """1 when both texts are equal after lowercasing and stripping, else 0. Empty text matches nothing."""
    predicted, wanted = str(prediction).strip().lower(), str(gold).strip().lower()
    return float(predicted == wanted and predicted != "")


def locomo_f1(prediction: Any, gold: Any, category: int) -> float:
    """LoCoMo's score of one answer, by the question's category integer. Raises ValueError for an unknown category.

    Stemmed multiset F1; category 1 averages, over the comma-separated parts of the gold, the best F1 of any predicted
    part; category 3 reads the gold up to its first ';'; category 5 asks whether the model refused to answer.
    """
    predicted, wanted = str(prediction), str(gold)
    if category == 1:
        parts = predicted.split(",")
        best = [max(_stemmed_f1(part, wanted_part) for part in parts) for wanted_part in wanted.split(",")]
        return sum(best) / len(best)
    if category == 5:
        refused = ("no information available", "not mentioned")
        return float(any(phrase in predicted.lower() for phrase in refused))
    if category not in LOCOMO_CATEGORIES:
        raise ValueError(f"LoCoMo has no category {category}: use one of {sorted(LOCOMO_CATEGORIES)}")
    return _stemmed_f1(predicted, wanted.split(";")[0] if category == 3 else wanted)


def _f1(num_same: int, num_predicted: int, num_wanted: int) -> float:
    """Harmonic mean of precision and recall; 0 when nothing is shared."""
    return 2 * num_same / (num_predicted + num_wanted) if num_same else 0.0


def _split_mem0(text: Any) -> list[str]:
    return str(text).lower().translate(_MEM0_PUNCTUATION).split()


def _stemmed_f1(prediction: str, gold: str) -> float:
    predicted, wanted = Counter(_split_locomo(prediction)), Counter(_split_locomo(gold))
    return _f1((predicted & wanted).total(), predicted.total(), wanted.total())


def _split_locomo(text: str) -> list[str]:
    stem = _stemmer()
    plain = _LOCOMO_ARTICLES.sub(" ", text.lower().translate(_ALL_PUNCTUATION))
    return [stem(word) for word in plain.split()]


@cache
def _word_tokenizer() -> Callable[[str], list[str]]:
    from nltk.tokenize import NLTKWordTokenizer

    tokenize: Callable[[str], list[str]] = NLTKWordTokenizer().tokenize
    return tokenize


@cache
def _stemmer() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer

    return lru_cache(maxsize=65_536)(PorterStemmer().stem)
