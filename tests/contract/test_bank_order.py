"""One bank in every kind of store: real conversations, the real embedder, the same memories in the same order."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from memr1.agents.fact_extractor import TurnExtractor
from memr1.bank.bank import BankStore
from memr1.bank.embedding import Embedder, MiniLmEmbedder
from memr1.bank.operation import Operation, Source
from memr1.bank.stores import open_store
from memr1.bank.weaviate_bank import WeaviateStore
from memr1.config import InMemoryBank, LanceBank, LocomoData, WeaviateBank
from memr1.data.conversation import Dataset
from memr1.data.loading import load_dataset
from tests.weaviate_double import running_double
from tests.weaviate_process import delete_collection, has_real_weaviate, real_weaviate

SHARED = Path(os.environ.get("MEMR1_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
ENTRIES_PER_SPEAKER = 30
UNSCORED = 5  # LoCoMo's category of questions without an answer
Open = Callable[[], BankStore]


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "locomo10.json").exists(), reason=f"no locomo10.json in {SHARED}")
def test_every_kind_of_bank_ranks_the_turns_of_locomo_alike_for_every_question(tmp_path: Path) -> None:
    dataset = load_dataset(LocomoData(kind="locomo", path=SHARED / "locomo10.json"), seed=0)
    embedder = MiniLmEmbedder(tmp_path / "vectors.sqlite")
    with a_weaviate(tmp_path) as open_weaviate:
        kinds = {
            "in_memory": lambda: open_store(InMemoryBank(kind="in_memory"), tmp_path / "in_memory", embedder),
            "lancedb": lambda: open_store(LanceBank(), tmp_path / "lancedb", embedder),
            "weaviate": lambda: open_weaviate(tmp_path / "weaviate", embedder),
        }
        found = {name: rank_all(open_one, dataset) for name, open_one in kinds.items()}
    assert len(found["in_memory"]) == 1540
    assert max(map(len, found["in_memory"].values())) == 2 * ENTRIES_PER_SPEAKER
    assert found["lancedb"] == found["in_memory"]
    assert found["weaviate"] == found["in_memory"]


def rank_all(open_one: Open, dataset: Dataset) -> dict[str, list[str]]:
    """Question → the turns of the entries retrieved for it, from a store that was filled, closed and opened again."""
    with closing(open_one()) as store:
        fill(store, dataset)
    speakers = {conversation.id: conversation.speakers for conversation in dataset.conversations}
    with closing(open_one()) as store:
        return {
            question.id: [
                entry.turn_ids[0]
                for speaker in speakers[question.conversation_id]
                for entry in store.bank(question.conversation_id).retrieve(
                    question.text, speaker=speaker, limit=ENTRIES_PER_SPEAKER
                )
            ]
            for question in dataset.questions
            if question.category != UNSCORED
        }


def fill(store: BankStore, dataset: Dataset) -> None:
    for conversation in dataset.conversations:
        spoken = [(conversation, session, turn) for session, turn in conversation.turns()]
        with store.group_commits():
            for (_, session, turn), facts in zip(spoken, TurnExtractor().extract(spoken), strict=True):
                heard = Source(turn_id=turn.id, speaker=turn.speaker, time=session.time, policy="everything")
                store.bank(conversation.id).apply([Operation(kind="ADD", text=fact.text) for fact in facts], heard)


@contextmanager
def a_weaviate(folder: Path) -> Iterator[Callable[[Path, Embedder], BankStore]]:
    """Opens stores on the real server where the environment names one, else on the double."""
    options = WeaviateBank(kind="weaviate", collection=f"Order_{secrets.token_hex(4)}")
    if has_real_weaviate():
        with real_weaviate(folder) as address:
            yield lambda at, embedder: WeaviateStore(at, embedder, options, address)
            delete_collection(address, options)
    else:
        with running_double() as double:
            yield lambda at, embedder: WeaviateStore(at, embedder, options, double.address)
