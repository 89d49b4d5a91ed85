"""Stage 2: the banks that training starts from, as the Memory Manager builds them before it is trained: those of the
training conversations, and those of the validation conversations, which choose between checkpoints.

Writes in 2_bank: store/ (the live bank), operations.jsonl (its journal), entries.jsonl, summary.json, validation.json.
Killed anywhere, it continues from the journal.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from memr1.agents.bank_builder import BuildSummary, build_banks
from memr1.agents.pair import build_pair
from memr1.bank.bank import BankStore
from memr1.bank.embedding import build_embedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import JOURNAL_NAME, InMemoryStore
from memr1.bank.stores import open_store
from memr1.config import AGENTS, RunConfig
from memr1.data.conversation import Conversation, SplitName
from memr1.data.stored import read_dataset
from memr1.data.validation import validate_rows
from memr1.records import write_json, write_jsonl
from memr1.run_dir import RunDir


def build_training_banks(
    run: RunDir, config: RunConfig, cache: Path, on_step: Callable[[int, int], None]
) -> BuildSummary:
    """Build, check and write the banks of training and validation. `cache` is the file of known embeddings.

    Raises AgentError when no output parses, ExpectationsFailed when the suite refuses the entries.
    """
    pair = build_pair(config, dict.fromkeys(AGENTS))
    embedder = build_embedder(cache)
    store = open_store(config.bank, run.bank / "store", embedder)
    try:
        summary = build_banks(
            conversations_to_build(run, config),
            pair.manager,
            pair.extractor,
            store,
            entries_per_turn=config.retrieval.entries_per_turn,
            embedder=embedder,
            on_step=on_step,
        )
        write_banks(run, store)
    finally:
        store.close()
    write_json(run.bank / "summary.json", summary.model_dump(mode="json"))
    return summary


def read_part(run: RunDir, config: RunConfig, cache: Path, first: int) -> Path:
    """Read as many conversations as a part has, from the `first` on, into a journal of their own; where it is.

    Raises what `build_training_banks` does.
    """
    assert config.build.kind == "ray"
    last = first + config.build.conversations_per_part
    pair = build_pair(config, dict.fromkeys(AGENTS))
    embedder = build_embedder(cache)
    folder = run.bank / "parts" / f"{first:06d}"
    with closing(InMemoryStore(embedder, folder)) as store:
        build_banks(
            conversations_to_build(run, config)[first:last],
            pair.manager,
            pair.extractor,
            store,
            entries_per_turn=config.retrieval.entries_per_turn,
            embedder=embedder,
        )
    return folder / JOURNAL_NAME


def conversations_to_build(run: RunDir, config: RunConfig) -> list[Conversation]:
    """Those of training and validation, in this order."""
    return list(read_dataset(run).conversations_of(*training_splits(config)))


def training_splits(config: RunConfig) -> tuple[SplitName, ...]:
    """The splits whose banks training needs."""
    return ("train", "validation") if config.training.max_validation_examples else ("train",)


def write_banks(run: RunDir, store: BankStore) -> None:
    """Write the journals and the entries they fold to, once the suite has accepted the entries."""

    def entries() -> Iterator[MemoryEntry]:
        return (entry for scope in store.scopes() for entry in store.bank(scope).entries())

    validate_rows("memory_entries", [entry_row(entry) for entry in entries()], run.bank / "validation.json")
    operations = (record for scope in store.scopes() for record in store.bank(scope).journal())
    write_jsonl(run.bank / "operations.jsonl", operations)
    write_jsonl(run.bank / "entries.jsonl", entries())


def entry_row(entry: MemoryEntry) -> dict[str, str | int]:
    """An entry as the suite memory_entries sees it."""
    row: dict[str, str | int] = {"scope": entry.scope, "id": entry.id, "speaker": entry.speaker, "text": entry.text}
    return {**row, "time": entry.time.isoformat(), "num_turn_ids": len(entry.turn_ids)}
