"""Writes the examples of a phase: stage files in, `3_examples/<phase>/examples.jsonl` out, and beside it
`validation_examples.jsonl`, made in the same way of the validation conversations. The former is written last.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from memr1.agents.answer_agent import retrieve_for_question
from memr1.agents.bank_builder import build_banks
from memr1.agents.bank_stage import training_splits
from memr1.agents.fact_extractor import FactExtractor, build_extractor
from memr1.agents.pair import build_pair
from memr1.agents.prompting import render_answer_prompt, render_manager_prompt
from memr1.bank.embedding import Embedder
from memr1.bank.in_memory import InMemoryBank, InMemoryStore
from memr1.bank.operation import JournalRecord, Source
from memr1.bank.retrieval import embedded_part
from memr1.config import AgentName, RunConfig
from memr1.data.conversation import Conversation, Dataset, Question, Session, SplitName, Turn
from memr1.data.stored import read_dataset
from memr1.data.validation import validate_rows
from memr1.errors import TrainingError
from memr1.phases import bank_phase, phase_seed, roles_of
from memr1.records import write_jsonl
from memr1.rl.examples import (
    AnswerExample,
    ManagerExample,
    bank_at,
    banks_before_turns,
    choose_answer_examples,
    choose_manager_examples,
    link_questions,
    retention_questions,
)
from memr1.rl.prior_banks import read_prior_banks
from memr1.run_dir import RunDir

OnStep = Callable[[int, int], None]
VALIDATION = "validation_examples.jsonl"


def write_examples(
    run: RunDir, config: RunConfig, phase: str, embedder: Embedder, on_step: OnStep | None = None
) -> int:
    """Write the examples of every role that the phase's policy plays; return the number of those to train on."""
    write: dict[AgentName, Callable[[], int]] = {
        "memory_manager": lambda: write_manager_examples(run, config, embedder, phase),
        "answer_agent": lambda: write_answer_examples(run, config, embedder, on_step, phase),
    }
    return sum(write[role]() for role in roles_of(phase))


def write_manager_examples(run: RunDir, config: RunConfig, embedder: Embedder, phase: str = "memory_manager") -> int:
    """Write the Memory Manager's examples from the banks that it built as it was before; return the number of those to
    train on."""
    dataset = read_dataset(run)
    extractor = build_extractor(config.extraction)
    journals = read_prior_banks(run, config, phase)
    folder, limits, seed = run.examples(phase, "memory_manager"), config.training, phase_seed(config, phase)

    def read(conversations: Iterable[Conversation]) -> list[ManagerExample]:
        return [
            example
            for conversation in conversations
            for example in _TurnReader(
                conversation, questions_of(dataset, conversation), journals.get(conversation.id, []), embedder, config
            ).read(extractor)
        ]

    held_out = read(dataset.conversations_of("validation")) if limits.max_validation_examples else []
    asked = [example for example in held_out if example.questions]  # the others have no score that is comparable
    write_jsonl(folder / VALIDATION, choose_manager_examples(asked, limits.max_validation_examples, seed))
    return _write(folder, choose_manager_examples(read(training_conversations(dataset)), limits.max_examples, seed))


def write_answer_examples(
    run: RunDir, config: RunConfig, embedder: Embedder, on_step: OnStep | None = None, phase: str = "answer_agent"
) -> int:
    """Write the Answer Agent's examples about the conversations' banks; return the number of those to train on.

    Where the phase follows a Memory Manager's, the *trained* Manager builds these banks first.
    """
    dataset = read_dataset(run)
    if bank_phase(config, before=phase) == phase:
        _build_banks(run, config, phase, dataset.conversations_of(*training_splits(config)), embedder, on_step)
    journals = read_prior_banks(run, config, phase)
    folder = run.examples(phase, "answer_agent")

    def ask(split: SplitName, limit: int) -> list[AnswerExample]:
        examples = [
            _answer_example(question, conversation, bank, config)
            for conversation in (dataset.conversations_of(split) if limit else [])
            for bank in [InMemoryBank(conversation.id, embedder, journal=journals.get(conversation.id, []))]
            for question in questions_of(dataset, conversation)
        ]
        return choose_answer_examples(examples, limit, phase_seed(config, phase))

    write_jsonl(folder / VALIDATION, ask("validation", config.training.max_validation_examples))
    return _write(folder, ask("train", config.training.max_examples))


def _build_banks(
    run: RunDir,
    config: RunConfig,
    phase: str,
    conversations: list[Conversation],
    embedder: Embedder,
    on_step: OnStep | None,
) -> None:
    pair = build_pair(config, run.models(config, before=phase))
    store = InMemoryStore(embedder, run.built_banks(phase))
    build_banks(
        conversations,
        pair.manager,
        pair.extractor,
        store,
        entries_per_turn=config.retrieval.entries_per_turn,
        embedder=embedder,
        on_step=on_step,
    )
    store.close()


def training_conversations(dataset: Dataset) -> list[Conversation]:
    """The conversations of the training split, in the split's order."""
    return dataset.conversations_of("train")


def questions_of(dataset: Dataset, conversation: Conversation) -> list[Question]:
    """The questions about one conversation."""
    return [question for question in dataset.questions if question.conversation_id == conversation.id]


def count_words(turn: Turn) -> int:
    """Words of a turn, its picture's caption included."""
    return len(f"{turn.text} {turn.image_caption or ''}".split())


class _TurnReader:
    """Goes through a conversation as stage 2 did, and makes an example of every turn that its journal holds."""

    def __init__(
        self,
        conversation: Conversation,
        questions: list[Question],
        journal: list[JournalRecord],
        embedder: Embedder,
        config: RunConfig,
    ) -> None:
        self._conversation = conversation
        self._linked = link_questions(questions)
        self._journal = journal
        self._before = banks_before_turns(journal)
        self._embedder = embedder
        self._config = config

    def read(self, extractor: FactExtractor) -> Iterator[ManagerExample]:
        spoken = [(session, turn) for session, turn in self._conversation.turns() if turn.id in self._before]
        found = extractor.extract([(self._conversation, session, turn) for session, turn in spoken])
        queries = ["\n".join(fact.text for fact in facts) for facts in found]
        # Remembered: one batch instead of one call each.
        self._embedder.embed([embedded_part(query, self._conversation.speakers) for query in queries])
        earlier: set[str] = set()
        words_read = 0
        for (session, turn), facts in zip(spoken, found, strict=True):
            words_read += count_words(turn)
            yield self._example(session, turn, [fact.text for fact in facts], earlier, words_read)
            earlier.add(turn.id)

    def _example(
        self, session: Session, turn: Turn, facts: list[str], earlier: set[str], words_read: int
    ) -> ManagerExample:
        scope, sequence = self._conversation.id, self._before[turn.id]
        bank = InMemoryBank(scope, self._embedder, entries=bank_at(self._journal, scope, sequence))
        limit = self._config.retrieval.entries_per_turn
        shown = bank.retrieve("\n".join(facts), speaker=turn.speaker, limit=limit)
        return ManagerExample(
            id=f"{scope}/{turn.id}",
            prompt=render_manager_prompt(self._config.memory_manager.prompt, shown, facts),
            scope=scope,
            source=Source(turn_id=turn.id, speaker=turn.speaker, time=session.time, policy="rollout"),
            bank_sequence=sequence,
            turn_words=count_words(turn),
            words_read=words_read,
            shown=tuple(entry.id for entry in shown),
            questions=tuple(self._linked.get(turn.id, ())),
            retention=retention_questions(self._linked, earlier, shown),
        )


def _answer_example(
    question: Question, conversation: Conversation, bank: InMemoryBank, config: RunConfig
) -> AnswerExample:
    limit = config.retrieval.entries_per_speaker
    memories = retrieve_for_question(bank, question.text, conversation.speakers, limit)
    return AnswerExample(
        id=question.id,
        prompt=render_answer_prompt(config.answer_agent.prompt, memories, question.text),
        question=question.text,
        answer=question.answer,
        category=question.category,
        memories=tuple(entry.id for entry in memories),
    )


def _write(folder: Path, examples: list[ManagerExample] | list[AnswerExample]) -> int:
    if not examples:
        raise TrainingError(
            f"no training example for {folder.name}: no question of the training split can be linked to a turn. "
            "Give questions evidence turn ids, or train on other conversations."
        )
    rows = [{"id": item.id, "prompt": item.prompt} for item in examples]
    validate_rows("training_examples", rows, folder / "validation.json")
    return write_jsonl(folder / "examples.jsonl", examples)
