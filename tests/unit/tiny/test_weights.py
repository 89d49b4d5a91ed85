"""The shipped weights: they are there, small, and know the forms on words they never saw."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from memr1.agents.parsing import ParseFailure, parse_answer, parse_operations
from memr1.agents.prompting import render_answer_prompt, render_manager_prompt
from memr1.agents.transformers_generator import TransformersGenerator
from memr1.bank.entry import MemoryEntry
from memr1.config import AGENTS, AgentName
from memr1.errors import CheckpointMissing
from memr1.tiny.forms import (
    answer_completion,
    manager_completion,
    nothing_found_completion,
    small_talk_completion,
)
from memr1.tiny.weights import BUILD_COMMAND, WEIGHTS_FOLDER, agent_folder

COMPLETIONS = (
    manager_completion("Marta lives in ?", "ADD", "Marta lives in Lisbon"),
    manager_completion("Marta lives in ?", "UPDATE", "Marta lives in Rome, earlier Lisbon", seen="Lisbon", number=11),
    manager_completion("Marta lives in ?", "DELETE", seen="Rome, earlier Lisbon", number=3),
    manager_completion("Marta lives in ?", "NOOP", seen="Lisbon", number=1),
    small_talk_completion(),
    answer_completion("Marta lives in ?, earlier ?", [("Marta lives in Rome, earlier Lisbon", 16)], "Lisbon"),
    nothing_found_completion("Marta lives in ?"),
)


def test_the_forms_are_the_documented_ones() -> None:
    assert COMPLETIONS[1] == (
        '{"operations":[{"about":"Marta lives in ?","seen":"Lisbon","id":11,'
        '"text":"Marta lives in Rome, earlier Lisbon","op":"UPDATE"}]}'
    )
    assert COMPLETIONS[5] == (
        '{"about":"Marta lives in ?, earlier ?","memories":[{"text":"Marta lives in Rome, earlier Lisbon","id":16}],'
        '"answer":"Lisbon"}'
    )
    assert COMPLETIONS[6] == '{"about":"Marta lives in ?","memories":[],"answer":"none"}'


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_is_a_qwen2_of_fewer_than_a_million_parameters(agent: AgentName) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(str(agent_folder(agent)))
    assert model.config.model_type == "qwen2"
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000


def test_both_agents_together_are_at_most_12_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS_FOLDER.rglob("*") if path.is_file()) <= 12_000_000


@pytest.mark.parametrize("agent", AGENTS)
def test_the_tokenizer_gives_back_every_text_as_it_was(agent: AgentName) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(str(agent_folder(agent)), padding_side="left")
    for text in (*COMPLETIONS, "It's Élodie's 2nd  \"café\" – don’t\n\n panic 👋"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_name_has_the_same_pieces_wherever_it_stands() -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(str(agent_folder("memory_manager")), padding_side="left")
    name = tokenizer.tokenize("Bruno")
    for text in ("Where does Bruno live?", "Marta: My friend Bruno moved to Rome.", '{"text":"Bruno lives in Rome"'):
        pieces = tokenizer.tokenize(text)
        assert any(pieces[place : place + len(name)] == name for place in range(len(pieces)))


@pytest.mark.parametrize("agent", AGENTS)
def test_a_prompt_ends_with_the_marker_and_padding_stands_on_the_left(agent: AgentName) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(str(agent_folder(agent)), padding_side="left")
    messages = [{"role": "user", "content": "memories:\n"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[-1] == "<|assistant|>"
    assert tokenizer.padding_side == "left" and tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_manager_restates_a_turn_it_never_saw() -> None:
    generator = TransformersGenerator(agent_folder("memory_manager"))
    shown = [_entry(1, "Hugo drives a Rover"), _entry(2, "Hugo grows roses")]
    turns = ["Hugo: I play the banjo.", "Hugo: I dug up the garden and planted beets.", "Hugo: How was your day?"]
    prompts = [render_manager_prompt("compact", shown, [turn]) for turn in turns]
    texts = generator.sample_texts(prompts, max_new_tokens=64)
    assert not any(isinstance(parse_operations(text, shown), ParseFailure) for text in texts)
    assert '"text":"Hugo plays the banjo"' in texts[0] and texts[2] == small_talk_completion()


def test_the_answer_agent_finds_an_entry_it_never_saw() -> None:
    generator = TransformersGenerator(agent_folder("answer_agent"))
    shown = [_entry(1, "Hugo drives a Rover"), _entry(2, "Hugo grows roses")]
    prompts = [
        render_answer_prompt("compact", shown, text) for text in ("What does Hugo grow?", "Which car does Hugo drive?")
    ]
    texts = generator.sample_texts(prompts, max_new_tokens=64)
    assert texts[0] == answer_completion("Hugo grows ?", [("Hugo grows roses", 2)], "roses")
    assert not any(isinstance(parse_answer(text, shown), ParseFailure) for text in texts)


def test_missing_weights_are_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissing, match=BUILD_COMMAND.replace(".", r"\.")):
        agent_folder("memory_manager", tmp_path)


def _entry(number: int, text: str) -> MemoryEntry:
    return MemoryEntry(id=str(number), scope="s", speaker="Hugo", text=text, time=datetime(2023, 1, 1))
