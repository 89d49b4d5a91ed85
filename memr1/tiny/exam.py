"""How good a pair of tiny agents is: what it answers on held-out conversations, and what it decides when sampled.

The second number is the one that matters for a warm start. Reinforcement can only make likelier what is sampled
now and then: a right decision of no probability is never found, however good the reward.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memr1.agents.answer_agent import AnswerAgent, AnswerRequest, retrieve_for_question
from memr1.agents.bank_builder import build_banks
from memr1.agents.fact_extractor import TurnExtractor
from memr1.agents.memory_manager import MemoryManager
from memr1.agents.transformers_generator import TransformersGenerator
from memr1.bank.embedding import Embedder
from memr1.bank.in_memory import InMemoryStore
from memr1.config import AGENTS, AgentName
from memr1.data.conversation import Dataset, Question
from memr1.data.synthetic import CATEGORY_NAMES, WORLDS, Level
from memr1.metrics import exact_match
from memr1.records import Record
from memr1.tiny.demonstrated_banks import Words
from memr1.tiny.demonstrations import UNBIASED, Teacher
from memr1.tiny.warm_start import DEMONSTRATE

MAX_NEW_TOKENS: dict[Level, int] = {"easy": 64, "full": 128}
ENTRIES_PER_TURN = 6
ENTRIES_PER_SPEAKER: dict[Level, int] = {"easy": 8, "full": 30}  # as in the profiles quickstart and synthetic-full
HELD_OUT_WORDS = Words(split="validation", invented_names=0.0, invented_values=0.0)
NUM_FACTS = 5  # at most, of a speaker
NUM_BRANCHES = 6


class PairScore(Record):
    """Exact match of a pair on held-out conversations, greedy."""

    exact_match: float
    by_category: dict[str, float]
    num_questions: int
    num_unreadable_turns: int
    num_unreadable_answers: int


class DecisionRates(Record):
    """Of one decision: how often it is right, sampled at temperature 1 and greedy.

    A Manager's completion must be right word by word, of an Answer Agent's only the answer.
    """

    sampled: float
    greedy: float
    num_prompts: int
    sampled_updates: float  # completions that hold an UPDATE


def score_pair(folders: Mapping[AgentName, Path], dataset: Dataset, level: Level, embedder: Embedder) -> PairScore:
    """Build the banks of the test conversations and answer their questions, as a run's evaluation does."""
    ids, max_new_tokens = dataset.splits.test, MAX_NEW_TOKENS[level]
    generators = {agent: TransformersGenerator(folders[agent]) for agent in AGENTS}
    store = InMemoryStore(embedder)
    summary = build_banks(
        [conversation for conversation in dataset.conversations if conversation.id in ids],
        MemoryManager(generators["memory_manager"], "compact", max_new_tokens),
        TurnExtractor(),
        store,
        entries_per_turn=ENTRIES_PER_TURN,
        embedder=embedder,
    )
    questions = [question for question in dataset.questions if question.conversation_id in ids]
    requests = _answer_requests(dataset, questions, store, ENTRIES_PER_SPEAKER[level])
    answers = AnswerAgent(generators["answer_agent"], "compact", max_new_tokens).answer(requests)
    scores = [exact_match(answer.text, question.answer) for answer, question in zip(answers, questions, strict=True)]
    return PairScore(
        exact_match=sum(scores) / len(scores),
        by_category=_mean_by([CATEGORY_NAMES[question.category] for question in questions], scores),
        num_questions=len(questions),
        num_unreadable_turns=summary.num_parse_failures,
        num_unreadable_answers=sum(answer.failure is not None for answer in answers),
    )


def rate_decisions(agent: AgentName, folder: Path, level: Level, num_banks: int, seed: int) -> dict[str, DecisionRates]:
    """Decision → rates, on banks of held-out words."""
    teacher = Teacher(random.Random(f"exam/{seed}/{agent}"), HELD_OUT_WORDS, WORLDS[level], UNBIASED)
    drawn = [DEMONSTRATE[agent](teacher, NUM_FACTS, NUM_BRANCHES) for _ in range(num_banks)]
    branches = [(item.bank + branch.prompt, branch) for item in drawn for branch in item.branches]
    generator = TransformersGenerator(folder, seed=seed)
    prompts = [prompt for prompt, _ in branches]
    sampled = generator.sample_texts(prompts, max_new_tokens=MAX_NEW_TOKENS[level], temperature=1.0)
    greedy = generator.sample_texts(prompts, max_new_tokens=MAX_NEW_TOKENS[level])
    decisions = [branch.decision for _, branch in branches]
    right = [branch.completion for _, branch in branches]
    shares = {
        "sampled": _mean_by(decisions, _compare(sampled, right)),
        "greedy": _mean_by(decisions, _compare(greedy, right)),
        "sampled_updates": _mean_by(decisions, ['"op":"UPDATE"' in text for text in sampled]),
    }
    return {
        name: DecisionRates(num_prompts=count, **{key: share[name] for key, share in shares.items()})
        for name, count in sorted(Counter(decisions).items())
    }


def _compare(completions: Sequence[str], right: Sequence[str]) -> list[bool]:
    """Whole Manager's completions; of an Answer Agent's only what follows the memories."""
    pairs = zip(completions, right, strict=True)
    return [text.rpartition('"answer":')[2] == wanted.rpartition('"answer":')[2] for text, wanted in pairs]


def _answer_requests(
    dataset: Dataset, questions: Sequence[Question], store: InMemoryStore, limit: int
) -> list[AnswerRequest]:
    """Every question with the entries retrieved for it."""
    speakers = {conversation.id: conversation.speakers for conversation in dataset.conversations}
    requests: list[AnswerRequest] = []
    for question in questions:
        scope = question.conversation_id
        memories = retrieve_for_question(store.bank(scope), question.text, speakers[scope], limit)
        requests.append(AnswerRequest(question_id=question.id, question=question.text, memories=tuple(memories)))
    return requests


def _mean_by(names: Sequence[Any], values: Sequence[float]) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for name, value in zip(names, values, strict=True):
        groups.setdefault(name, []).append(value)
    return {name: sum(group) / len(group) for name, group in sorted(groups.items())}
