"""Stage 1's material: what it says is right where it promises so, and biased where it says so."""

import json
import random
import re
from datetime import datetime

import pytest

from memr1.agents.parsing import ParseFailure, parse_answer, parse_operations
from memr1.bank.entry import MemoryEntry
from memr1.data.synthetic import WORLDS, Level
from memr1.tiny.demonstrated_banks import Words
from memr1.tiny.demonstrations import (
    UNBIASED,
    Bias,
    Branch,
    Demonstration,
    Teacher,
    demonstrate_answers,
    demonstrate_manager,
)

LEVELS: tuple[Level, ...] = ("easy", "full")


@pytest.mark.parametrize("level", LEVELS)
def test_every_manager_demonstration_parses_against_the_entries_it_shows(level: Level) -> None:
    for demonstration in _manager_demonstrations(Bias(), 40, level):
        shown = _entries(demonstration)
        assert len(shown) <= 6
        for branch in demonstration.branches:
            assert not isinstance(parse_operations(branch.completion, shown), ParseFailure)


@pytest.mark.parametrize("level", LEVELS)
def test_a_manager_demonstration_names_the_entry_that_holds_what_it_saw(level: Level) -> None:
    for demonstration in _manager_demonstrations(UNBIASED, 40, level):
        texts = {str(number): entry.text for number, entry in enumerate(_entries(demonstration), 1)}
        for branch in demonstration.branches:
            for operation in json.loads(branch.completion)["operations"]:
                known = operation["about"].replace("?", operation["seen"])
                assert not operation["seen"] or any(text.startswith(known) for text in texts.values())
                if "id" in operation:
                    assert texts[str(operation["id"])].startswith(known)


@pytest.mark.parametrize(("decision", "right"), [("change", "UPDATE"), ("removal", "DELETE")])
def test_an_unbiased_manager_always_decides_rightly_and_a_biased_one_in_part(decision: str, right: str) -> None:
    for bias, low, high in ((UNBIASED, 1.0, 1.0), (Bias(), 0.2, 0.7)):
        completions = [b.completion for d in _manager_demonstrations(bias, 300) for b in _of(d, decision)]
        share = sum(f'"op":"{right}"' in text for text in completions) / len(completions)
        assert low <= share <= high


@pytest.mark.parametrize("level", LEVELS)
def test_an_update_keeps_every_former_value_and_takes_the_month_from_the_turn(level: Level) -> None:
    for demonstration in _manager_demonstrations(UNBIASED, 60, level):
        for branch in _of(demonstration, "change"):
            (operation,) = json.loads(branch.completion)["operations"]
            told = re.search(r"Since (\w+ \d+): ", branch.prompt)
            former = [part.removeprefix("earlier ") for part in operation["seen"].split(", ") if "since " not in part]
            since = f", since {told[1]}" if told else ""
            assert operation["text"].endswith(since + "".join(f", earlier {value}" for value in former))
            assert (told is not None) == (level == "full")


def test_questions_of_the_full_world_ask_for_months_and_people_and_are_answered_from_the_entry() -> None:
    demonstrations = _answer_demonstrations(UNBIASED, 80, "full")
    for branch in [b for d in demonstrations for b in _of(d, "when")]:
        told = json.loads(branch.completion)
        assert f", since {told['answer']}" in told["memories"][0]["text"]
    asked = [b for d in demonstrations for b in _of(d, "which")]
    assert asked
    for branch in asked:
        told = json.loads(branch.completion)
        known = told["about"].removeprefix("who").removesuffix("?")
        *others, last = [memory["text"] for memory in told["memories"]]
        assert last.startswith(told["answer"] + known)
        pair = re.search(r", (\w+) or (\w+)\?", branch.prompt)
        assert pair and told["answer"] in pair.groups()
        assert [text.startswith(pair[1]) and known not in text for text in others] in ([], [True])
        looked_up_both = bool(others)
        assert not looked_up_both or told["answer"] == pair[2]


def test_a_question_to_be_answered_at_once_is_answered_without_naming_a_memory() -> None:
    asked = [b for d in _answer_demonstrations(Bias(), 60, "easy") for b in _of(d, "direct")]
    assert asked
    for branch in asked:
        assert "answer at once:" in branch.prompt
        answer = parse_answer(branch.completion, ())
        assert not isinstance(answer, ParseFailure)
        assert answer.memory_ids == () and answer.text


@pytest.mark.parametrize("level", LEVELS)
def test_every_answer_demonstration_takes_its_answer_from_the_memory_it_names(level: Level) -> None:
    for demonstration in _answer_demonstrations(Bias(), 40, level):
        shown = _entries(demonstration)
        for branch in demonstration.branches:
            if branch.decision == "direct":
                continue
            answer = parse_answer(branch.completion, shown)
            assert not isinstance(answer, ParseFailure)
            texts = {entry.id: entry.text for entry in shown}
            said = answer.text.split(", earlier ")  # both values, where the former one was not noticed
            if answer.memory_ids:
                assert all(part in texts[answer.memory_ids[-1]] for part in said)
            else:
                assert answer.text == "none"


def test_nothing_is_found_only_where_no_entry_is_about_it() -> None:
    for demonstration in _answer_demonstrations(Bias(), 60, "full"):
        for branch in _of(demonstration, "missing"):
            about = json.loads(branch.completion)["about"]
            assert not any(entry.text.startswith(about.removesuffix("?")) for entry in _entries(demonstration))


def test_some_banks_are_empty() -> None:
    assert any(not _entries(demonstration) for demonstration in _manager_demonstrations(Bias(), 60))


def _of(demonstration: Demonstration, decision: str) -> list[Branch]:
    return [branch for branch in demonstration.branches if branch.decision == decision]


def _manager_demonstrations(bias: Bias, count: int, level: Level = "easy") -> list[Demonstration]:
    teacher = Teacher(random.Random(3), Words(), WORLDS[level], bias)
    return [demonstrate_manager(teacher, 6, 4) for _ in range(count)]


def _answer_demonstrations(bias: Bias, count: int, level: Level) -> list[Demonstration]:
    teacher = Teacher(random.Random(3), Words(), WORLDS[level], bias)
    return [demonstrate_answers(teacher, 7, 4) for _ in range(count)]


def _entries(demonstration: Demonstration) -> list[MemoryEntry]:
    lines = [json.loads(line) for line in demonstration.bank.splitlines()[1:] if line]
    time = datetime(2023, 1, 1)
    return [MemoryEntry(id=str(line["id"]), scope="s", speaker="a", text=line["text"], time=time) for line in lines]
