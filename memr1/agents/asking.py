"""Asks a finished run's trained pair one question about one conversation of its dataset.

The bank is the one that the trained Memory Manager built: replayed from a journal that the run left where there is
one (held-out conversations: the evaluation's; training conversations: the examples'), else built now.
"""

from pathlib import Path

from memr1.agents.answer_agent import Answer, AnswerRequest, retrieve_for_question
from memr1.agents.bank_builder import build_banks
from memr1.agents.pair import AgentPair, build_pair
from memr1.bank.bank import MemoryBank
from memr1.bank.embedding import Embedder, build_embedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import JOURNAL_NAME, InMemoryBank, InMemoryStore
from memr1.bank.journal import read_journal
from memr1.config import RunConfig
from memr1.data.conversation import Conversation
from memr1.data.stored import read_dataset
from memr1.errors import AgentError, CheckpointMissing
from memr1.phases import bank_phase, stage_of
from memr1.records import Record
from memr1.run_dir import RunDir


class AskedAnswer(Record):
    """The answer, and the entries it was chosen from; `used` are those the Answer Agent picked."""

    answer: Answer
    retrieved: tuple[MemoryEntry, ...]

    @property
    def used(self) -> list[MemoryEntry]:
        """The memories behind the answer, in the order in which they were shown."""
        return [entry for entry in self.retrieved if entry.id in self.answer.memory_ids]


def answer_question(run: RunDir, config: RunConfig, conversation_id: str, question: str, cache: Path) -> AskedAnswer:
    """Ask the run's pair. Raises CheckpointMissing before training is done, AgentError for an unknown conversation."""
    conversation = _find_conversation(run, conversation_id)
    models = run.models(config)
    for agent, folder in models.items():
        if not folder.is_dir():
            raise CheckpointMissing(f"{run.root} has no trained {agent} yet: finish it with `memr1 run {run.root}`")
    pair = build_pair(config, models)
    bank = _trained_bank(run, config, pair, conversation, build_embedder(cache))
    memories = retrieve_for_question(bank, question, conversation.speakers, config.retrieval.entries_per_speaker)
    request = AnswerRequest(question_id="asked", question=question, memories=tuple(memories))
    return AskedAnswer(answer=pair.answer_agent.answer([request])[0], retrieved=tuple(memories))


def _find_conversation(run: RunDir, conversation_id: str) -> Conversation:
    conversations = {item.id: item for item in read_dataset(run).conversations}
    if conversation_id not in conversations:
        known = ", ".join(list(conversations)[:5])
        raise AgentError(f"no conversation {conversation_id!r} in {run.conversations}; it holds {known} …")
    return conversations[conversation_id]


def _trained_bank(
    run: RunDir, config: RunConfig, pair: AgentPair, conversation: Conversation, embedder: Embedder
) -> MemoryBank:
    for folder in _finished_banks(run, config):
        records = [record for record in read_journal(folder / JOURNAL_NAME) if record.scope == conversation.id]
        if records:
            return InMemoryBank(conversation.id, embedder, journal=records)
    store = InMemoryStore(embedder)
    build_banks(
        [conversation],
        pair.manager,
        pair.extractor,
        store,
        entries_per_turn=config.retrieval.entries_per_turn,
        embedder=embedder,
    )
    return store.bank(conversation.id)


def _finished_banks(run: RunDir, config: RunConfig) -> list[Path]:
    """Folders of journals that the trained Memory Manager wrote to the end."""
    folders = {"evaluate": run.evaluation / "systems" / "trained" / "bank"}
    phase = bank_phase(config)
    if phase is not None:
        folders[stage_of(phase)] = run.built_banks(phase)
    return [folder for stage, folder in folders.items() if run.read_done(stage) is not None]
