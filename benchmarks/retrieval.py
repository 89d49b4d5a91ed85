"""How much of a question's evidence retrieval finds on LoCoMo, and how fast.

    python benchmarks/retrieval.py --data locomo10.json [--quick] [--out FILE.json]

The share of evidence turns behind the best 30 (5, 10) entries of each speaker, categories 1 to 4, on the eight test
conversations of the paper, over all evidence turns and as the mean of the questions' shares: once with every turn as an
entry, once with the dataset's observations. No model but the embedder takes part. Milliseconds are the
processor's for one retrieval of 30 of a speaker's entries, its query embedded before.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from harness import run_benchmark

from memr1.agents.fact_extractor import TurnExtractor
from memr1.bank.bank import MemoryBank
from memr1.bank.embedding import Embedder, build_embedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryBank
from memr1.config import LocomoData
from memr1.data.conversation import Conversation, Dataset, Fact, Question
from memr1.data.loading import load_dataset
from memr1.environment import embedding_cache

LIMITS = (5, 10, 30)  # entries per speaker: the paper's 60 are 30 of each of two
UNSCORED = 5  # LoCoMo's category of questions without an answer


def measure(options: argparse.Namespace) -> dict[str, object]:
    dataset = load_dataset(LocomoData(kind="locomo", path=options.data), seed=0)
    embedder = build_embedder(embedding_cache())
    asked = [c for c in dataset.conversations if c.id in dataset.splits.test[: 1 if options.quick else None]]
    turns = measure_recall(dataset, {c.id: bank_of(c, turn_facts(c), embedder) for c in asked})
    observations = measure_recall(dataset, {c.id: bank_of(c, list(c.facts), embedder) for c in asked})
    return {"dataset_sha256": dataset.sha256, **turns, "observations": observations}


def measure_recall(dataset: Dataset, banks: dict[str, MemoryBank]) -> dict[str, object]:
    """`banks` by conversation."""
    speakers = {conversation.id: conversation.speakers for conversation in dataset.conversations}
    questions = [q for q in dataset.questions if q.conversation_id in banks and q.category != UNSCORED]
    found: dict[int, list[bool]] = defaultdict(list)
    categories: list[int] = []
    sizes: list[int] = []
    milliseconds: list[float] = []
    for question in questions:
        best = list(timed_rankings(banks[question.conversation_id], question, speakers[question.conversation_id]))
        milliseconds += [taken for _, taken in best]
        categories += [question.category] * len(question.evidence)
        sizes.append(len(question.evidence))
        for limit in LIMITS:
            shown = {turn_id for entries, _ in best for entry in entries[:limit] for turn_id in entry.turn_ids}
            found[limit] += [turn_id in shown for turn_id in question.evidence]
    widest = found[LIMITS[-1]]
    by_category: dict[int, list[bool]] = defaultdict(list)
    for category, hit in zip(categories, widest, strict=True):
        by_category[category].append(hit)
    return {
        "num_questions": len(questions),
        "num_evidence_turns": len(widest),
        "recall_at_60": share(widest),
        "recall_at_60_mean_of_questions": mean_share(widest, sizes),
        "by_category": {str(kind): share(hits) for kind, hits in sorted(by_category.items())},
        "recall_at": {str(limit): share(hits) for limit, hits in found.items()},
        "processor_milliseconds_p50": round(median(milliseconds), 2),
    }


def share(hits: list[bool]) -> float | None:
    return round(sum(hits) / len(hits), 3) if hits else None


def mean_share(hits: list[bool], sizes: list[int]) -> float:
    """The mean of the shares of consecutive runs of `hits`, `sizes` long; runs of length 0 do not count."""
    remaining = iter(hits)
    shares = [sum(next(remaining) for _ in range(size)) / size for size in sizes if size]
    return round(sum(shares) / len(shares), 3)


def timed_rankings(
    bank: MemoryBank, question: Question, speakers: tuple[str, ...]
) -> Iterator[tuple[list[MemoryEntry], float]]:
    """Every speaker's best entries, and the processor's milliseconds that this took."""
    bank.retrieve(question.text, speaker=None, limit=1)  # embeds the query
    for speaker in speakers:
        started = time.process_time()
        entries = bank.retrieve(question.text, speaker=speaker, limit=LIMITS[-1])
        yield entries, 1e3 * (time.process_time() - started)


def turn_facts(conversation: Conversation) -> list[Fact]:
    """Every turn as its own fact, in the words in which memr1 stores a turn."""
    spoken = [(conversation, session, turn) for session, turn in conversation.turns()]
    return [fact for facts in TurnExtractor().extract(spoken) for fact in facts]


def bank_of(conversation: Conversation, facts: list[Fact], embedder: Embedder) -> MemoryBank:
    """A bank that holds every fact word by word, in spoken order."""
    times = {turn.id: session.time for session, turn in conversation.turns()}
    entries = [
        MemoryEntry(
            id=str(number),
            scope=conversation.id,
            speaker=fact.speaker,
            text=fact.text,
            time=times[fact.turn_id],
            turn_ids=(fact.turn_id,),
        )
        for number, fact in enumerate(facts, 1)
    ]
    return InMemoryBank(conversation.id, embedder, entries=entries)


if __name__ == "__main__":
    run_benchmark("retrieval", __doc__, measure)
