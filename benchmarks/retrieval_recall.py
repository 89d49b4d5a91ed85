"""How much of a question's evidence retrieval finds on LoCoMo, when every turn is an entry.

    python benchmarks/retrieval_recall.py --data locomo10.json [--quick] [--out FILE.json]

The share of evidence turns among the first 5, 10 and 30 entries of each speaker, categories 1 to 4, on the eight
test conversations of the paper. No model but the embedder takes part.
"""

import argparse
import re

from harness import run_benchmark

from memr1.bank.bank import MemoryBank
from memr1.bank.embedding import Embedder, build_embedder
from memr1.bank.in_memory import InMemoryBank
from memr1.bank.operation import Operation, Source
from memr1.config import LocomoData
from memr1.data.conversation import Conversation
from memr1.data.loading import load_dataset
from memr1.environment import embedding_cache

LIMITS = (5, 10, 30)
UNSCORED = 5  # LoCoMo's category of questions without an answer


def measure(options: argparse.Namespace) -> dict[str, object]:
    dataset = load_dataset(LocomoData(kind="locomo", path=options.data), seed=0)
    embedder = build_embedder(embedding_cache())
    found: dict[int, list[bool]] = {limit: [] for limit in LIMITS}
    for conversation in dataset.conversations:
        if conversation.id not in dataset.splits.test[: 1 if options.quick else None]:
            continue
        bank = build_turn_bank(conversation, embedder)
        for question in dataset.questions:
            if question.conversation_id == conversation.id and question.category != UNSCORED:
                evidence = [item for field in question.evidence for item in re.split(r"[;\s]+", field) if item]
                for limit in LIMITS:
                    shown = shown_turns(bank, question.text, conversation.speakers, limit)
                    found[limit] += [turn_id in shown for turn_id in evidence]
    return {
        "dataset_sha256": dataset.sha256,
        "num_evidence_turns": len(found[LIMITS[0]]),
        "recall_by_entries_per_speaker": {str(limit): round(sum(hits) / len(hits), 3) for limit, hits in found.items()},
    }


def build_turn_bank(conversation: Conversation, embedder: Embedder) -> MemoryBank:
    """A bank that holds every turn word by word."""
    bank = InMemoryBank(conversation.id, embedder)
    for session, turn in conversation.turns():
        text = f"{turn.speaker}: {turn.text}" + (f" [{turn.image_caption}]" if turn.image_caption else "")
        source = Source(turn_id=turn.id, speaker=turn.speaker, time=session.time, policy="benchmark")
        bank.apply([Operation(kind="ADD", text=text)], source)
    return bank


def shown_turns(bank: MemoryBank, question: str, speakers: tuple[str, ...], limit: int) -> set[str]:
    """The turns behind the best entries of every speaker."""
    best = [entry for speaker in speakers for entry in bank.retrieve(question, speaker=speaker, limit=limit)]
    return {turn_id for entry in best for turn_id in entry.turn_ids}


if __name__ == "__main__":
    run_benchmark("retrieval_recall", __doc__, measure)
