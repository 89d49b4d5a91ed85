"""Packing changes what a demonstration costs, not what it is; the planted circuit looks things up untrained."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from memr1.config import AGENTS, AgentName
from memr1.data.synthetic import WORLDS
from memr1.tiny.architecture import VOCABULARY_SIZE, Shape, build_network
from memr1.tiny.demonstrated_banks import Words
from memr1.tiny.demonstrations import Teacher
from memr1.tiny.tokenizer import END, write_tokenizer
from memr1.tiny.warm_start import DEMONSTRATE, pack


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, VOCABULARY_SIZE, seed=7)
    return AutoTokenizer.from_pretrained(str(folder), padding_side="left")


@pytest.mark.parametrize("agent", AGENTS)
def test_a_packed_branch_is_scored_as_the_whole_prompt_would_be(tokenizer: Any, agent: AgentName) -> None:
    network = build_network(Shape(), seed=1).eval()
    teacher = Teacher(random.Random(0), Words(), WORLDS["easy"])
    demonstrations = [DEMONSTRATE[agent](teacher, 6, 3) for _ in range(2)]
    batch = pack(demonstrations, tokenizer)
    with torch.no_grad():
        packed = network(input_ids=batch.tokens, attention_mask=batch.visible, position_ids=batch.positions).logits
    for row, demonstration in enumerate(demonstrations):
        ends = (batch.wanted[row] == tokenizer.convert_tokens_to_ids(END)).nonzero()[:, 0]
        for place, branch in zip(ends, demonstration.branches, strict=True):
            whole = _encode_whole(tokenizer, demonstration.bank + branch.prompt, branch.completion)
            with torch.no_grad():
                alone = network(input_ids=whole).logits[0, -1]
            assert torch.allclose(alone, packed[row, place], atol=1e-4)


def test_only_completions_are_scored(tokenizer: Any) -> None:
    demonstration = DEMONSTRATE["answer_agent"](Teacher(random.Random(2), Words(), WORLDS["full"]), 4, 2)
    batch = pack([demonstration], tokenizer)
    scored = batch.wanted[0][batch.wanted[0] >= 0]
    wanted = "".join(branch.completion + END for branch in demonstration.branches)
    assert tokenizer.decode(scored) == wanted


def test_a_fresh_network_already_looks_repeated_tokens_up() -> None:
    network = build_network(Shape(), seed=7).eval()
    generator = torch.Generator().manual_seed(0)
    listed = torch.stack([torch.randperm(VOCABULARY_SIZE, generator=generator)[:24] for _ in range(16)])
    tokens = torch.cat([listed, listed[:, 8:16]], dim=1)
    with torch.no_grad():
        predicted = network(input_ids=tokens).logits[:, 24:31].argmax(-1)
    assert (predicted == tokens[:, 25:]).float().mean() > 0.9


def _encode_whole(tokenizer: Any, prompt: str, completion: str) -> torch.Tensor:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids: torch.Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return ids
