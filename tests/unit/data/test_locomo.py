"""Every oddity of LoCoMo's file on small hand-made records, and the real file where it is present."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from memr1.config import LocomoData
from memr1.data.loading import load_dataset
from memr1.data.locomo import paper_splits, parse_locomo
from memr1.data.source import Contents, SourceFile, read_source
from memr1.errors import DatasetFormatError


def turn(turn_id: str, speaker: str = "Ana", text: str = "Hello.", **more: Any) -> dict[str, Any]:
    return {"dia_id": turn_id, "speaker": speaker, "text": text, **more}


def question(evidence: Any = ("D1:1",), **more: Any) -> dict[str, Any]:
    return {"question": "Where?", "answer": "Rome", "category": 4, "evidence": list(evidence), **more}


def sample(name: str = "conv-1", **more: Any) -> dict[str, Any]:
    """Two sessions of two turns each, one question."""
    conversation = {
        "speaker_a": "Ana",
        "speaker_b": "Ben",
        "session_1": [turn("D1:1"), turn("D1:2", "Ben")],
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_2": [turn("D2:1"), turn("D2:11", "Ben")],
        "session_2_date_time": "12:05 am on 9 May, 2023",
        **more.pop("conversation", {}),
    }
    return {"sample_id": name, "conversation": conversation, "qa": [question()], "event_summary": {}, **more}


def parse(*samples: Any) -> Contents:
    return parse_locomo(SourceFile(Path("locomo.json"), json.dumps(samples), "0"))


def parse_evidence(*evidence: str, known: int = 300) -> tuple[Contents, tuple[str, ...]]:
    """The evidence of one question among `known` sound ones, so that a flaw in it is rare."""
    contents = parse(sample(qa=[question(evidence), *[question()] * known]))
    return contents, contents.questions[0].evidence


def test_sessions_carry_their_time_and_turns_their_image_caption() -> None:
    pictured = turn("D1:1", blip_caption="a red bicycle", img_url=["http://x"], query="bicycle")
    conversation = parse(sample(conversation={"session_1": [pictured]})).conversations[0]
    assert [session.time for session in conversation.sessions] == [
        datetime(2023, 5, 8, 13, 56),
        datetime(2023, 5, 9, 0, 5),
    ]
    assert conversation.turns()[0][1].image_caption == "a red bicycle"
    assert conversation.speakers == ("Ana", "Ben")


def test_sessions_are_ordered_by_number_not_by_text() -> None:
    later = {"session_10": [turn("D10:1")], "session_10_date_time": "1:00 pm on 1 June, 2023"}
    sessions = parse(sample(conversation=later)).conversations[0].sessions
    assert [session.id for session in sessions] == ["session_1", "session_2", "session_10"]


def test_a_date_without_a_session_is_left_out_with_its_reason() -> None:
    contents = parse(sample(conversation={"session_3_date_time": "1:00 pm on 1 June, 2023"}))
    assert len(contents.conversations[0].sessions) == 2
    assert [(row.kind, row.id) for row in contents.left_out] == [("session", "conv-1 session_3")]


def test_an_answer_that_is_a_number_becomes_text() -> None:
    assert parse(sample(qa=[question(answer=2022)])).questions[0].answer == "2022"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["D1:1; D2:1"], ("D1:1", "D2:1")),
        (["D1:1 D1:2 D2:1"], ("D1:1", "D1:2", "D2:1")),
        (["D1:1, D2:1"], ("D1:1", "D2:1")),
        (["D:2:11"], ("D2:11",)),
        (["D2:01"], ("D2:1",)),
        (["D1:1", "D1:1", "D2:1"], ("D1:1", "D2:1")),
        (["D2:11", "D1:2"], ("D1:2", "D2:11")),
        ([], ()),
    ],
)
def test_evidence_is_repaired_deduplicated_and_put_in_spoken_order(written: list[str], read: tuple[str, ...]) -> None:
    contents, evidence = parse_evidence(*written)
    assert evidence == read
    assert contents.left_out == ()


@pytest.mark.parametrize("dangling", ["D9:19", "D"])
def test_rare_evidence_that_names_no_turn_is_dropped_but_its_question_kept(dangling: str) -> None:
    contents, evidence = parse_evidence("D1:2", dangling)
    assert evidence == ("D1:2",)
    assert [(row.kind, row.id, row.value) for row in contents.left_out] == [("evidence", "conv-1-qa0", dangling)]


def test_frequent_evidence_that_names_no_turn_is_left_for_the_gate() -> None:
    contents, evidence = parse_evidence("D1:2", "D9:19", known=50)
    assert evidence == ("D1:2", "D9:19")
    assert contents.left_out == ()


def test_adversarial_questions_are_counted_but_not_asked() -> None:
    adversarial = {"question": "Why?", "adversarial_answer": "Rome", "category": 5, "evidence": ["D1:1"]}
    contents = parse(sample(qa=[question(), adversarial, {**adversarial, "answer": "Rome"}]))
    assert [item.id for item in contents.questions] == ["conv-1-qa0"]
    assert [(row.kind, row.id) for row in contents.left_out] == [
        ("question", "conv-1-qa1"),
        ("question", "conv-1-qa2"),
    ]


def test_a_repeated_question_is_kept_under_its_own_id() -> None:
    assert [item.id for item in parse(sample(qa=[question(), question()])).questions] == ["conv-1-qa0", "conv-1-qa1"]


def test_observations_become_facts_at_the_turn_that_completes_them() -> None:
    observation = {
        "session_2_observation": {"Ben": [["Ben likes tea.", ["D2:1", "D2:11"]]]},
        "session_1_observation": {"Ana": [["Ana moved.", "D1:2, D1:1"], ["Ana said hello.", "D1:1"]]},
    }
    facts = parse(sample(observation=observation)).conversations[0].facts
    assert [(fact.speaker, fact.text, fact.turn_id) for fact in facts] == [
        ("Ana", "Ana said hello.", "D1:1"),
        ("Ana", "Ana moved.", "D1:2"),
        ("Ben", "Ben likes tea.", "D2:11"),
    ]


def test_an_observation_of_no_turn_or_nobody_is_left_out() -> None:
    observation = {"session_1_observation": {"Ana": [["Ana moved.", "D7:7"]], "Zoe": [["Zoe left.", "D1:1"]]}}
    contents = parse(sample(observation=observation))
    assert contents.conversations[0].facts == ()
    assert [row.kind for row in contents.left_out] == ["fact", "fact"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({}, "must be a list"),
        ([], "must be a list"),
        (["conv-1"], "locomo.json[0]"),
        ([{"sample_id": "conv-1"}], "conversation: Field required"),
        ([sample(qa={})], "qa"),
        ([sample(qa=[question(category="temporal")])], "qa.0.category"),
        ([sample(qa=[question(category=7)])], "qa.0.category"),
        ([sample(qa=[question(evidence=[3])])], "qa.0.evidence.0"),
        ([sample(conversation={"session_1": [turn("D1:1", text=5)]})], "conv-1 session_1, turn 1: text"),
        ([sample(conversation={"session_1": {"a": 1}})], "must be a list of turns"),
        ([sample(conversation={"speaker_b": None})], "speakers.1"),
        ([sample(conversation={"session_2_date_time": None})], "session_2 (session_2_date_time) has no date"),
        ([sample(conversation={"session_2_date_time": "soon"})], "'soon' is not a date"),
    ],
)
def test_a_malformed_file_is_refused_by_field(broken: Any, said: str) -> None:
    with pytest.raises(DatasetFormatError) as refusal:
        parse_locomo(SourceFile(Path("locomo.json"), json.dumps(broken), "0"))
    assert said in str(refusal.value)


def test_the_papers_split_needs_the_papers_conversations() -> None:
    split = paper_splits(parse(sample("conv-26"), sample("conv-30"), sample("conv-41"), sample("conv-50")))
    assert split is not None
    assert (split.train, split.validation, split.test) == (("conv-26",), ("conv-30",), ("conv-41", "conv-50"))
    assert paper_splits(parse(sample("conv-26"), sample("conv-30"))) is None
    assert paper_splits(parse(sample("conv-26"), sample("conv-30"), sample("mine"))) is None
    assert paper_splits(parse(sample("conv-41"), sample("conv-42"), sample("conv-43"))) is None


def test_the_real_file_gives_the_published_counts(shared_file: Callable[[str], Path]) -> None:
    dataset = load_dataset(LocomoData(kind="locomo", path=shared_file("locomo10.json")), seed=7)
    home = {name: part for part, names in dataset.splits.model_dump().items() for name in names}
    assert len(dataset.conversations) == 10
    assert sum(len(item.sessions) for item in dataset.conversations) == 272
    assert sum(len(item.turns()) for item in dataset.conversations) == 5882
    assert sum(len(item.facts) for item in dataset.conversations) == 2541
    assert sum(row.image_caption is not None for item in dataset.conversations for _, row in item.turns()) == 1226
    assert Counter(item.category for item in dataset.questions) == {1: 282, 2: 321, 3: 96, 4: 841}
    assert Counter(home[item.conversation_id] for item in dataset.questions) == {
        "train": 152,
        "validation": 81,
        "test": 1307,
    }
    assert Counter(row.kind for row in dataset.left_out) == {"question": 446, "session": 16, "evidence": 3}
    assert sum(not item.evidence for item in dataset.questions) == 4
    assert "CC BY-NC 4.0" in dataset.licence_notice
    assert dataset.sha256 == read_source(shared_file("locomo10.json")).sha256


def test_every_fact_and_every_piece_of_evidence_in_the_real_file_names_a_turn(
    shared_file: Callable[[str], Path],
) -> None:
    contents = parse_locomo(read_source(shared_file("locomo10.json")))
    turns = {item.id: {row.id for _, row in item.turns()} for item in contents.conversations}
    assert all(set(item.evidence) <= turns[item.conversation_id] for item in contents.questions)
    assert all(fact.turn_id in turns[item.id] for item in contents.conversations for fact in item.facts)
