"""The synthetic world: what it promises about splits, evidence, operations and golds, for any options and seed."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from memr1.data.conversation import Conversation, Dataset, ExpectedOperation, Question
from memr1.data.synthetic import CATEGORY_NAMES, WORLDS, SyntheticOptions, build_synthetic_dataset
from memr1.data.synthetic_relations import RELATIONS
from memr1.data.synthetic_words import NAMES, VALUES, list_words

SPLITS = ("train", "validation", "test")
KINDS = ("name", *VALUES)

_options = st.builds(
    SyntheticOptions,
    level=st.sampled_from(["easy", "full"]),
    num_train=st.integers(1, 3),
    num_validation=st.integers(1, 2),
    num_test=st.integers(1, 3),
)
_seeds = st.integers(0, 10_000)


def test_no_word_stands_in_two_splits_or_means_two_things() -> None:
    words = " ".join([NAMES, *VALUES.values()]).lower().split()
    assert len(words) == len(set(words))
    for kind in KINDS:
        assert sum(len(list_words(kind, split, easy=False)) for split in SPLITS) == len(_all_words(kind))


def test_easy_words_have_at_most_seven_letters() -> None:
    assert all(len(word) <= 7 for kind in KINDS for split in SPLITS for word in list_words(kind, split, easy=True))


def test_the_easy_world_has_the_size_of_the_measured_prototype() -> None:
    dataset = build_synthetic_dataset(SyntheticOptions(num_train=5, num_validation=2, num_test=60), seed=7)
    test = [c for c in dataset.conversations if c.id in dataset.splits.test]
    asked = [q for q in dataset.questions if q.conversation_id in dataset.splits.test]
    assert len(asked) == 60 * 13
    assert 25 <= sum(len(c.turns()) for c in test) / 60 <= 27
    assert {q.category for q in asked} == {1, 2, 5, 6}


def test_the_full_world_asks_every_kind_of_question() -> None:
    dataset = build_synthetic_dataset(SyntheticOptions(level="full", num_train=3, num_validation=1, num_test=1), seed=1)
    assert {question.category for question in dataset.questions} == set(CATEGORY_NAMES)


@settings(max_examples=10, deadline=None)
@given(_options, _seeds)
def test_building_twice_gives_the_same_dataset_and_another_seed_another_one(o: SyntheticOptions, seed: int) -> None:
    dataset = build_synthetic_dataset(o, seed)
    assert dataset == build_synthetic_dataset(o, seed)
    assert dataset.sha256 != build_synthetic_dataset(o, seed + 1).sha256


@settings(max_examples=10, deadline=None)
@given(_options, _seeds)
def test_splits_share_no_name_and_no_value(options: SyntheticOptions, seed: int) -> None:
    dataset = build_synthetic_dataset(options, seed)
    known = {word for kind in KINDS for word in _all_words(kind)}
    used = [known.intersection(_words_of(dataset, ids)) for ids in dataset.splits.model_dump().values()]
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


@settings(max_examples=10, deadline=None)
@given(_options, _seeds)
def test_evidence_exists_in_spoken_order(options: SyntheticOptions, seed: int) -> None:
    dataset = build_synthetic_dataset(options, seed)
    for conversation, questions in _by_conversation(dataset):
        ids = [turn.id for _, turn in conversation.turns()]
        assert len(ids) == len(set(ids))
        for question in questions:
            places = [ids.index(turn_id) for turn_id in question.evidence]
            assert places and places == sorted(set(places))


@settings(max_examples=10, deadline=None)
@given(_options, _seeds)
def test_expected_operations_make_every_gold_readable_from_the_last_evidence_on(o: SyntheticOptions, seed: int) -> None:
    for conversation, questions in _by_conversation(build_synthetic_dataset(o, seed)):
        banks = _banks_after_turns(conversation)
        ids = list(banks)
        for question in questions:
            last = ids.index(question.evidence[-1])
            assert all(_read(banks[turn_id], question) == {question.answer} for turn_id in ids[last:])
            if last:
                assert _read(banks[ids[last - 1]], question) != {question.answer}


@settings(max_examples=10, deadline=None)
@given(_options, _seeds)
def test_no_question_is_asked_twice_with_two_answers(options: SyntheticOptions, seed: int) -> None:
    for _, questions in _by_conversation(build_synthetic_dataset(options, seed)):
        assert len({question.text for question in questions}) == len(questions)


@settings(max_examples=10, deadline=None)
@given(_options, _seeds)
def test_one_operation_stands_for_every_turn_that_is_no_small_talk(options: SyntheticOptions, seed: int) -> None:
    dataset = build_synthetic_dataset(options, seed)
    world = WORLDS[options.level]
    for conversation in dataset.conversations:
        turn_ids = [operation.turn_id for operation in conversation.expected_operations]
        assert len(turn_ids) == len(set(turn_ids)) == len(conversation.turns()) - world.num_small_talk
        assert {turn.speaker for _, turn in conversation.turns()} <= set(conversation.speakers)


def _all_words(kind: str) -> list[str]:
    return (NAMES if kind == "name" else VALUES[kind]).split()


def _words_of(dataset: Dataset, ids: tuple[str, ...]) -> set[str]:
    texts = [turn.text for c in dataset.conversations if c.id in ids for _, turn in c.turns()]
    texts += [speaker for c in dataset.conversations if c.id in ids for speaker in c.speakers]
    texts += [text for q in dataset.questions if q.conversation_id in ids for text in (q.text, q.answer)]
    return set(re.findall(r"\w+", " ".join(texts)))


def _by_conversation(dataset: Dataset) -> list[tuple[Conversation, list[Question]]]:
    return [(c, [q for q in dataset.questions if q.conversation_id == c.id]) for c in dataset.conversations]


def _banks_after_turns(conversation: Conversation) -> dict[str, list[str]]:
    """Turn id → the entries that the expected operations have left by then."""
    expected = {operation.turn_id: operation for operation in conversation.expected_operations}
    bank: list[str] = []
    banks: dict[str, list[str]] = {}
    for _, turn in conversation.turns():
        if turn.id in expected:
            bank = _applied(bank, expected[turn.id])
        banks[turn.id] = bank
    return banks


def _applied(bank: list[str], operation: ExpectedOperation) -> list[str]:
    if operation.kind == "ADD":
        return [*bank, operation.text]
    if operation.kind == "UPDATE":
        assert operation.replaces in bank
        return [operation.text if text == operation.replaces else text for text in bank]
    if operation.kind == "DELETE":
        assert operation.replaces in bank
        return [text for text in bank if text != operation.replaces]
    return bank


def _read(bank: list[str], question: Question) -> set[str]:
    """Every answer that the entries give to the question; {"none"} where they give none."""
    relation = next(r for r in RELATIONS if _asks_about(question.text, r.phrase))
    answers = set()
    for entry in bank:
        person, found, values = entry.partition(f" {relation.phrase} ")
        if found:
            answers |= _answers(question, person, values)
    return answers or {"none"}


def _answers(question: Question, person: str, values: str) -> set[str]:
    current, *rest = values.split(", ")
    since = [part.removeprefix("since ") for part in rest if part.startswith("since ")]
    former = [part.removeprefix("earlier ") for part in rest if part.startswith("earlier ")]
    names = re.findall(r"\w+", question.text)
    if question.category == 4:
        return {person} if current in names and person in names else set()
    if person not in names:
        return set()
    if question.category == 3:
        return set(since) if current in names else set()
    return set(former[:1]) if question.category == 2 else {current}


def _asks_about(text: str, phrase: str) -> bool:
    """Whether any form of a question about the relation fits the text."""
    relation = next(r for r in RELATIONS if r.phrase == phrase)
    forms = [*relation.ask, relation.ask_former, relation.ask_before, relation.ask_when, f"Who {phrase} {{value}}, "]
    patterns = [re.sub(r"\\\{(name|value)\\\}", r"\\w+", re.escape(form)) for form in forms]
    return any(re.match(pattern, text) for pattern in patterns)
