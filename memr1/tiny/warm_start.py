"""Stage 1: learn the forms of one agent from demonstrations, several of them packed on one bank.

The branches of a bank see the bank and themselves, not each other (a tree-shaped attention mask, positions counted on
from the bank's end): each is exactly the prompt that the agent will meet, and the bank is computed once.
"""

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from memr1.config import AgentName
from memr1.data.synthetic import WORLDS, Level
from memr1.records import Record
from memr1.tiny.architecture import build_optimizer, take_step
from memr1.tiny.demonstrated_banks import Words
from memr1.tiny.demonstrations import (
    BIAS,
    Bias,
    Demonstration,
    QuestionMix,
    Teacher,
    demonstrate_answers,
    demonstrate_manager,
)
from memr1.tiny.tokenizer import END, MARKER

log = logging.getLogger(__name__)
Demonstrate = Callable[[Teacher, int, int], Demonstration]
DEMONSTRATE: dict[AgentName, Demonstrate] = {
    "memory_manager": demonstrate_manager,
    "answer_agent": demonstrate_answers,
}
NOT_SCORED = -100


class WarmStartOptions(Record):
    """One round of demonstrations for one agent."""

    num_steps: int
    num_facts: dict[Level, tuple[int, int]]  # most facts of a speaker at the first step, and from 40 % of the steps on
    num_branches: int
    batch_size: int = 24
    batches_drawn_at_once: int = 1  # more: banks of like length share a batch, so that less of it is padding
    full_share: float = 0.6  # of the steps show the full world, the others the easy one
    learning_rate: float = 1.5e-3  # falls to 0 over the last 40 % of the steps: "nothing found" needs that
    warmup_steps: int = 40
    words: Words = Words()
    bias: dict[Level, Bias] = BIAS
    mix: QuestionMix = QuestionMix()


# The second round is for copying: banks as long as they get, twice the branches on each, and of the questions more of
# those that a single look-up does not answer.
WARM_START: dict[AgentName, tuple[WarmStartOptions, ...]] = {
    "memory_manager": (
        WarmStartOptions(num_steps=1500, num_facts={"easy": (3, 6), "full": (3, 7)}, num_branches=6),
        WarmStartOptions(
            num_steps=700,
            num_facts={"easy": (6, 6), "full": (7, 7)},
            num_branches=12,
            batch_size=16,
            batches_drawn_at_once=8,
            full_share=0.75,
            learning_rate=1e-3,
        ),
    ),
    "answer_agent": (
        WarmStartOptions(num_steps=1300, num_facts={"easy": (3, 7), "full": (3, 9)}, num_branches=5),
        WarmStartOptions(
            num_steps=700,
            num_facts={"easy": (7, 7), "full": (9, 9)},
            num_branches=10,
            batch_size=16,
            batches_drawn_at_once=8,
            full_share=0.75,
            learning_rate=1e-3,
            mix=QuestionMix(missing=0.14, changed=0.6, which=0.35),
        ),
    ),
}


class Batch(NamedTuple):
    """Packed demonstrations; L is the longest sequence."""

    tokens: torch.Tensor  # (B, L)
    positions: torch.Tensor  # (B, L)
    visible: torch.Tensor  # (B, 1, L, L): who may look at whom
    wanted: torch.Tensor  # (B, L): the token itself inside a completion, else NOT_SCORED


def show_demonstrations(network: Any, tokenizer: Any, agent: AgentName, options: WarmStartOptions, seed: int) -> float:
    """Train on fresh demonstrations for all steps; return the share of right tokens (running mean)."""
    batches = _draw_batches(random.Random(f"{seed}/{agent}"), agent, options)
    optimizer = build_optimizer(network, options.learning_rate)
    network.train()
    accuracy = 0.0
    for step in range(options.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _learning_share(step, options)
        level, drawn = next(batches)
        loss, right = _score(network, pack(drawn, tokenizer))
        take_step(network, optimizer, loss)
        accuracy += (right - accuracy) * max(0.05, 1.0 / (step + 1))
        if (step + 1) % 25 == 0:
            log.info("%s step %d (%s): loss %.3f, right %.3f", agent, step + 1, level, float(loss.detach()), accuracy)
    return accuracy


def pack(demonstrations: Sequence[Demonstration], tokenizer: Any) -> Batch:
    """Tokens, positions and the tree-shaped mask of several demonstrations."""
    rows = [_encode(demonstration, tokenizer) for demonstration in demonstrations]
    longest = max(len(row) for row in rows)
    size = (len(rows), longest)
    tokens, positions = torch.zeros(size, dtype=torch.long), torch.zeros(size, dtype=torch.long)
    branch = torch.full(size, -1)  # 0: the bank; 1, 2, …: its branches; -1: padding
    wanted = torch.full(size, NOT_SCORED)
    for place, row in enumerate(rows):
        columns = torch.tensor(row).T
        for target, column in zip((tokens, positions, branch, wanted), columns, strict=True):
            target[place, : len(row)] = column
    same = branch[:, :, None] == branch[:, None, :]
    bank = (branch == 0)[:, None, :] & (branch >= 0)[:, :, None]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    return Batch(tokens, positions, ((same | bank) & causal)[:, None], wanted)


def _encode(demonstration: Demonstration, tokenizer: Any) -> list[tuple[int, int, int, int]]:
    """(token, position, branch, wanted) of the bank and then of every branch."""
    marker, end = tokenizer.convert_tokens_to_ids([MARKER, END])
    texts = [demonstration.bank]
    for branch in demonstration.branches:
        texts += [branch.prompt, branch.completion]
    bank, *parts = tokenizer(texts, add_special_tokens=False)["input_ids"]
    row = [(token, place, 0, NOT_SCORED) for place, token in enumerate(bank)]
    for number, (prompt, completion) in enumerate(zip(parts[::2], parts[1::2], strict=True), 1):
        tokens = [*prompt, marker, *completion, end]
        first_scored = len(prompt) + 1
        row += [
            (token, len(bank) + place, number, token if place >= first_scored else NOT_SCORED)
            for place, token in enumerate(tokens)
        ]
    return row


def _draw_batches(
    rng: random.Random, agent: AgentName, options: WarmStartOptions
) -> Iterator[tuple[Level, list[Demonstration]]]:
    """Batch after batch, each of one level: demonstrations of like length. A batch drawn alone stays as it is drawn."""
    size, at_once = options.batch_size, options.batches_drawn_at_once
    for step in itertools.count(step=at_once):
        level: Level = "full" if rng.random() < options.full_share else "easy"
        drawn = [_draw(rng, agent, options, level, step) for _ in range(size * at_once)]
        if at_once > 1:
            drawn.sort(key=lambda demonstration: len(demonstration.bank))
        starts = range(0, len(drawn), size)
        for start in rng.sample(starts, at_once) if at_once > 1 else starts:
            yield level, drawn[start : start + size]


def _draw(rng: random.Random, agent: AgentName, options: WarmStartOptions, level: Level, step: int) -> Demonstration:
    first, last = options.num_facts[level]
    growth = min(1.0, step / (0.4 * options.num_steps))
    max_facts = first + round((last - first) * growth)
    teacher = Teacher(rng, options.words, WORLDS[level], options.bias[level], options.mix)
    return DEMONSTRATE[agent](teacher, max_facts, options.num_branches)


def _learning_share(step: int, options: WarmStartOptions) -> float:
    rise = (step + 1) / options.warmup_steps
    fall = (options.num_steps - step) / (0.4 * options.num_steps)
    return min(1.0, rise, fall)


def _score(network: Any, batch: Batch) -> tuple[torch.Tensor, float]:
    """Mean cross entropy of the completions' tokens, and the share predicted rightly."""
    hidden = network.model(
        input_ids=batch.tokens, attention_mask=batch.visible, position_ids=batch.positions
    ).last_hidden_state[:, :-1]
    scored = batch.wanted[:, 1:] != NOT_SCORED
    logits = network.lm_head(hidden[scored])
    wanted = batch.wanted[:, 1:][scored]
    right = float((logits.argmax(-1) == wanted).float().mean())
    return torch.nn.functional.cross_entropy(logits, wanted), right
