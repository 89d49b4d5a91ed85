"""How much of a question's evidence retrieval finds on LoCoMo, and how fast.

    python benchmarks/retrieval.py --data locomo10.json [--quick] [--out FILE.json]

The share of a question's evidence turns behind the best 30 (5, 10) entries of each speaker, mean over the questions of
categories 1 to 4 on the eight test conversations of the paper: once with every turn as an entry, once with the
dataset's observations. No model but the embedder takes part. Milliseconds are the processor's for one retrieval of 30
of a speaker's entries, its query embedded before.
"""

import argparse
import time
from collections.abc import Iterator
from statistics import fmean, mean, median

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
    """`banks` by conversation. A question without evidence has no share."""
    speakers = {conversation.id: conversation.speakers for conversation in dataset.conversations}
    asked = [q for q in dataset.questions if q.conversation_id in banks and q.category != UNSCORED and q.evidence]
    shares: dict[int, list[float]] = {limit: [] for limit in LIMITS}  # one per question
    milliseconds: list[float] = []
    for question in asked:
        best = list(timed_rankings(banks[question.conversation_id], question, speakers[question.conversation_id]))
        milliseconds += [taken for _, taken in best]
        for limit in LIMITS:
            shown = {turn_id for entries, _ in best for entry in entries[:limit] for turn_id in entry.turn_ids}
            shares[limit].append(mean([turn_id in shown for turn_id in question.evidence]))
    widest = list(zip(asked, shares[LIMITS[-1]], strict=True))
    num_turns = [len(question.evidence) for question in asked]
    categories = sorted({question.category for question in asked})
    return {
        "num_questions": len(asked),
        "num_evidence_turns": sum(num_turns),
        "recall_at_60": round(mean(shares[LIMITS[-1]]), 3),
        "recall_at_60_of_all_turns": round(fmean(shares[LIMITS[-1]], weights=num_turns), 3),
        "by_category": {
            str(kind): round(mean(share for question, share in widest if question.category == kind), 3)
            for kind in categories
        },
        "recall_at": {str(limit): round(mean(values), 3) for limit, values in shares.items()},
        "milliseconds_p50": round(median(milliseconds), 2),
    }


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
