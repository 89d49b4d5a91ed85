from datetime import datetime
from importlib import resources

import pytest

from memr1.agents.prompting import (
    read_template,
    render_answer_prompt,
    render_extraction_prompt,
    render_manager_prompt,
)
from tests.builders import entry

MEMORIES = [entry("7", 'Ann says "hi"'), entry("9", "Zoë lives in Łódź", speaker="Zoë", time=datetime(2023, 11, 2))]


def test_the_compact_manager_prompt_is_exactly_what_the_shipped_model_was_trained_on() -> None:
    assert render_manager_prompt("compact", MEMORIES, ["Ann: I live in Rome.", "Ann: And you?"]) == (
        "memories:\n"
        '{"text":"Ann says \\"hi\\"","id":1}\n'
        '{"text":"Zoë lives in Łódź","id":2}\n'
        "turn:\n"
        "Ann: I live in Rome.\nAnn: And you?\n"
        "operations:"
    )


def test_the_compact_answer_prompt_is_exactly_what_the_shipped_model_was_trained_on() -> None:
    assert render_answer_prompt("compact", MEMORIES[:1], "Where?") == (
        'memories:\n{"text":"Ann says \\"hi\\"","id":1}\nquestion:\nWhere?\nanswer:'
    )
    assert render_answer_prompt("compact", [], "Where?") == "memories:\n\nquestion:\nWhere?\nanswer:"


def test_the_published_forms_number_and_date_memories_and_head_each_speakers() -> None:
    manager = render_manager_prompt("paper", MEMORIES, ["Ann: hello"])
    assert '\n1. 01 May 2024: Ann says "hi"\n2. 02 November 2023: Zoë lives in Łódź\n' in manager
    answer = render_answer_prompt("paper", MEMORIES, "Where?")
    assert "Memories for user Ann:\n1. 01 May 2024: Ann" in answer
    assert "Memories for user Zoë:\n2. 02 November 2023: Zoë" in answer
    assert "**Answer:**" in answer and answer.endswith("Question: Where?")


def test_braces_in_a_memory_or_a_question_are_not_filled_in() -> None:
    prompt = render_answer_prompt("compact", [entry("1", "Ann wrote {question} and {memories}")], "{memories}?")
    assert prompt == 'memories:\n{"text":"Ann wrote {question} and {memories}","id":1}\nquestion:\n{memories}?\nanswer:'


def test_a_template_of_ones_own_replaces_the_text_of_the_form() -> None:
    assert render_manager_prompt("compact", MEMORIES[:1], ["f"], "{facts}|{memories}") == (
        'f|{"text":"Ann says \\"hi\\"","id":1}'
    )
    assert render_answer_prompt("compact", [], "q", "ask {question}") == "ask q"


def test_the_extraction_prompt_shows_the_last_line_apart_from_those_before_it() -> None:
    prompt = render_extraction_prompt("Ann", datetime(2024, 5, 1), ["Bob: Do you like it?", "Ann: I do."])
    assert "Earlier messages:\nBob: Do you like it?\n" in prompt and prompt.endswith("The message:\nAnn: I do.")
    assert "01 May 2024" in prompt and "{" not in prompt.replace('{"facts": ', "")


@pytest.mark.parametrize(
    "name", [item.name.removesuffix(".txt") for item in resources.files("memr1.agents").joinpath("prompts").iterdir()]
)
def test_every_shipped_template_has_its_parts(name: str) -> None:
    parts = {
        "memory_manager": ["{memories}", "{facts}"],
        "answer_agent": ["{memories}", "{question}"],
        "extraction": ["{speaker}", "{date}", "{earlier}", "{turn}"],
        "judge": ["{question}", "{gold}", "{prediction}"],
    }
    expected = next(found for ending, found in parts.items() if name.endswith(ending))
    assert all(read_template(name).count(part) >= 1 for part in expected)
