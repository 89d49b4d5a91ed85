"""Which conversations train, validate and test: whole ones, since the questions about one share its memory."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence

from memr1.data.conversation import Conversation, Question, Splits
from memr1.errors import DatasetFormatError

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.1


def split_conversations(conversations: Sequence[Conversation], questions: Sequence[Question], seed: int) -> Splits:
    """A seeded 80/10/10 split in which every part has a question; conversations with equal text stay together.

    Raises DatasetFormatError when fewer than three different conversations have questions.
    """
    asked = {question.conversation_id for question in questions}
    all_groups = _equal_groups(conversations)
    groups = [group for group in all_groups if asked.intersection(group)]
    silent = _flatten([group for group in all_groups if not asked.intersection(group)])
    if len(groups) < 3:
        raise DatasetFormatError(
            f"only {len(groups)} different conversation(s) have questions, and a run needs three: one each to train, "
            "validate and test. Add some, or score a trained pair on these with `memr1 evaluate --data`."
        )
    random.Random(seed).shuffle(groups)
    num_validation = max(1, round(VALIDATION_SHARE * len(groups)))
    num_test = max(1, round(TEST_SHARE * len(groups)))
    validation = _flatten(groups[:num_validation])
    test = _flatten(groups[num_validation : num_validation + num_test])
    train = [*_flatten(groups[num_validation + num_test :]), *silent]
    return Splits(train=tuple(sorted(train)), validation=tuple(sorted(validation)), test=tuple(sorted(test)))


def score_all(conversations: Sequence[Conversation]) -> Splits:
    """Every conversation is held out: for a file that a trained pair is only scored on."""
    return Splits(train=(), validation=(), test=tuple(item.id for item in conversations))


def refuse_leakage(splits: Splits, conversations: Sequence[Conversation]) -> None:
    """Raise DatasetFormatError unless every conversation is in exactly one part, and no text in two."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    home: dict[str, str] = {}
    for part, ids in parts.items():
        for name in ids:
            if name in home:
                raise DatasetFormatError(f"conversation {name!r} is both in {home[name]} and in {part}: keep one.")
            home[name] = part
    known = {item.id for item in conversations}
    if known != set(home):
        raise DatasetFormatError(f"conversations {sorted(known ^ set(home))[:5]} are not in exactly one split.")
    for group in _equal_groups(conversations):
        if len({home[name] for name in group}) > 1:
            raise DatasetFormatError(f"conversations {group} say the same and are in different splits: keep one.")


def require_questions(splits: Splits, questions: Sequence[Question]) -> None:
    """Raise DatasetFormatError when a part has conversations but not one question."""
    asked = {question.conversation_id for question in questions}
    for part, ids in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if ids and not asked.intersection(ids):
            raise DatasetFormatError(f"no question is about a {part} conversation ({', '.join(ids[:5])}): add some.")


def _equal_groups(conversations: Sequence[Conversation]) -> list[list[str]]:
    """Ids of conversations whose turns are word for word the same, together."""
    groups: dict[str, list[str]] = defaultdict(list)
    for item in sorted(conversations, key=lambda item: item.id):
        said = "\n".join(f"{turn.speaker}\t{turn.text}" for _, turn in item.turns())
        groups[hashlib.sha256(said.encode()).hexdigest()].append(item.id)
    return list(groups.values())


def _flatten(groups: list[list[str]]) -> list[str]:
    return [name for group in groups for name in group]
