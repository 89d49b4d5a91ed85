"""Stage 1's material: what it says is right where it promises so, and biased where it says so."""

import json
import random
from datetime import datetime

import pytest

from memr1.agents.parsing import ParseFailure, parse_answer, parse_operations
from memr1.bank.entry import MemoryEntry
from memr1.tiny.demonstrations import (
    UNBIASED,
    Bias,
    Branch,
    Demonstration,
    Words,
    demonstrate_answers,
    demonstrate_manager,
)

WORDS = Words()


def test_every_manager_demonstration_parses_against_the_entries_it_shows() -> None:
    for demonstration in _manager_demonstrations(Bias(), 40):
        shown = _entries(demonstration)
        assert len(shown) <= 6
        for branch in demonstration.branches:
            assert not isinstance(parse_operations(branch.completion, shown), ParseFailure)


def test_a_manager_demonstration_names_the_entry_that_holds_what_it_saw() -> None:
    for demonstration in _manager_demonstrations(UNBIASED, 40):
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


def test_every_answer_demonstration_takes_its_answer_from_the_memory_it_names() -> None:
    for demonstration in _answer_demonstrations(Bias(), 40):
        shown = _entries(demonstration)
        for branch in demonstration.branches:
            answer = parse_answer(branch.completion, shown)
            assert not isinstance(answer, ParseFailure)
            texts = [entry.text for entry in shown if entry.id in answer.memory_ids]
            assert (answer.text == "none" and not texts) or answer.text in texts[0]


def test_nothing_is_found_only_where_no_entry_is_about_it() -> None:
    for demonstration in _answer_demonstrations(Bias(), 60):
        for branch in _of(demonstration, "missing"):
            about = json.loads(branch.completion)["about"]
            assert not any(entry.text.startswith(about.removesuffix("?")) for entry in _entries(demonstration))


def test_some_banks_are_empty() -> None:
    assert any(not _entries(demonstration) for demonstration in _manager_demonstrations(Bias(), 60))


def _of(demonstration: Demonstration, decision: str) -> list[Branch]:
    return [branch for branch in demonstration.branches if branch.decision == decision]


def _manager_demonstrations(bias: Bias, count: int) -> list[Demonstration]:
    rng = random.Random(3)
    return [demonstrate_manager(rng, WORDS, bias, 6, 4) for _ in range(count)]


def _answer_demonstrations(bias: Bias, count: int) -> list[Demonstration]:
    rng = random.Random(3)
    return [demonstrate_answers(rng, WORDS, bias, 7, 4) for _ in range(count)]


def _entries(demonstration: Demonstration) -> list[MemoryEntry]:
    lines = [json.loads(line) for line in demonstration.bank.splitlines()[1:] if line]
    time = datetime(2023, 1, 1)
    return [MemoryEntry(id=str(line["id"]), scope="s", speaker="a", text=line["text"], time=time) for line in lines]
