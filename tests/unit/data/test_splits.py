"""Splits are by whole conversation, seeded, and refuse leakage."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memr1.data.conversation import Conversation, Question, Session, Splits, Turn
from memr1.data.splits import refuse_leakage, require_questions, score_all, split_conversations
from memr1.errors import DatasetFormatError


def conversation(name: str, text: str | None = None) -> Conversation:
    turn = Turn(id="D1:1", speaker="Ana", text=text or f"I am {name}.")
    session = Session(id="session_1", time=datetime(2024, 3, 2), turns=(turn,))
    return Conversation(id=name, speakers=("Ana",), sessions=(session,))


def question(name: str) -> Question:
    return Question(id=f"{name}-q1", conversation_id=name, text="Who?", answer=name, category=1)


def build(num: int) -> tuple[list[Conversation], list[Question]]:
    names = [f"c{number}" for number in range(num)]
    return [conversation(name) for name in names], [question(name) for name in names]


@given(st.integers(3, 60), st.integers(0, 5), st.integers(0, 10**6))
def test_every_conversation_lands_in_exactly_one_part_and_every_part_asks(num: int, silent: int, seed: int) -> None:
    conversations, questions = build(num + silent)
    splits = split_conversations(conversations, questions[:num], seed)
    refuse_leakage(splits, conversations)
    require_questions(splits, questions[:num])
    assert len(splits.train) + len(splits.validation) + len(splits.test) == num + silent
    assert splits == split_conversations(list(reversed(conversations)), questions[:num], seed)


def test_a_hundred_conversations_are_split_80_10_10() -> None:
    splits = split_conversations(*build(100), seed=7)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [80, 10, 10]
    assert splits != split_conversations(*build(100), seed=8)


def test_conversations_that_say_the_same_stay_together() -> None:
    conversations, questions = build(12)
    twins = [conversation("t1", "same"), conversation("t2", "same")]
    for seed in range(20):
        splits = split_conversations(conversations + twins, [*questions, question("t1")], seed)
        assert {"t1", "t2"} <= set(splits.train) or not {"t1", "t2"} & set(splits.train)
        refuse_leakage(splits, conversations + twins)


def test_fewer_than_three_conversations_with_questions_cannot_be_split() -> None:
    conversations, questions = build(5)
    with pytest.raises(DatasetFormatError, match="only 2 different conversation"):
        split_conversations(conversations, questions[:2], seed=7)


def test_a_conversation_in_two_parts_is_leakage() -> None:
    with pytest.raises(DatasetFormatError, match="'c0' is both in train and in test"):
        refuse_leakage(Splits(train=("c0",), validation=("c1",), test=("c2", "c0")), build(3)[0])


def test_equal_conversations_in_two_parts_are_leakage() -> None:
    conversations = [conversation("a", "same"), conversation("b", "same"), conversation("c")]
    with pytest.raises(DatasetFormatError, match=r"\['a', 'b'\] say the same"):
        refuse_leakage(Splits(train=("a",), validation=("c",), test=("b",)), conversations)


def test_a_conversation_in_no_part_is_refused() -> None:
    with pytest.raises(DatasetFormatError, match="c2"):
        refuse_leakage(Splits(train=("c0",), validation=("c1",), test=()), build(3)[0])


def test_a_part_without_a_question_is_refused() -> None:
    splits = Splits(train=("c0",), validation=("c1",), test=("c2",))
    with pytest.raises(DatasetFormatError, match="validation conversation"):
        require_questions(splits, [question("c0"), question("c2")])


def test_a_foreign_file_is_held_out_completely() -> None:
    assert score_all(build(2)[0]) == Splits(train=(), validation=(), test=("c0", "c1"))
