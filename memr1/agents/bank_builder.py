"""Builds the banks of many conversations in lockstep: the next turn of every conversation is one batch.

A conversation's turns must be read in order, each beside the memories that the earlier ones left. Conversations know
nothing of each other, so a model sees as many prompts at once as there are conversations left.

The journal is the progress: a build that was killed goes on behind the last turn of each conversation that is in it,
so nothing is read twice or lost. Turns without facts cost no model call and leave no trace. An output that cannot be
read leaves the bank as it is and stands in the journal as a NOOP with `source.failure`.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from memr1.agents.fact_extractor import FactExtractor, Spoken
from memr1.agents.memory_manager import ManagerDecision, ManagerPolicy, ManagerRequest
from memr1.bank.bank import BankStore, MemoryBank
from memr1.bank.embedding import Embedder
from memr1.bank.operation import JournalRecord, Source
from memr1.bank.retrieval import embedded_part
from memr1.data.conversation import Conversation, OperationKind
from memr1.errors import AgentError, BankError
from memr1.records import Record

log = logging.getLogger(__name__)
OPERATION_KINDS: tuple[OperationKind, ...] = ("ADD", "UPDATE", "DELETE", "NOOP")
MIN_OUTPUTS_TO_JUDGE = 50  # this many outputs, and none of them readable: the model is at fault, not a rollout
MIN_OUTPUTS_AT_END = 10  # the same once everything was read

OnStep = Callable[[int, int], None]  # turns read, turns in all


class FailedOutput(Record):
    """What a Memory Manager said at a turn when that could not be read."""

    conversation_id: str
    turn_id: str
    text: str


class BuildSummary(Record):
    """What the banks are now. Everything but `num_facts` and `seconds` counts earlier, interrupted builds too."""

    num_turns: int
    num_facts: int  # of the turns that this build read
    num_calls: int  # turns that a Memory Manager decided on
    num_parse_failures: int
    failures: tuple[FailedOutput, ...]
    operations: dict[OperationKind, int]  # as decided: failures are not among the NOOPs
    num_entries: int
    seconds: float


@dataclass(frozen=True)
class _Step:
    """A turn that has facts, with the bank it is for."""

    bank: MemoryBank
    source: Source
    facts: tuple[str, ...]

    @property
    def query(self) -> str:
        return "\n".join(self.facts)

    @property
    def embedded_query(self) -> str:
        return embedded_part(self.query, {entry.speaker for entry in self.bank.entries()})


def build_banks(
    conversations: Sequence[Conversation],
    manager: ManagerPolicy,
    extractor: FactExtractor,
    store: BankStore,
    *,
    entries_per_turn: int,
    embedder: Embedder,
    on_step: OnStep | None = None,
) -> BuildSummary:
    """Read every turn that the store's journal does not hold yet. `embedder` is the one that the store retrieves with.

    Raises AgentError when no output at all can be read (then none of them is in the journal), GenerationFailed, and
    BankError for a journal that belongs to other conversations.
    """
    started = time.monotonic()
    build = _JudgedBuild(manager, store, embedder, entries_per_turn)
    reading = _Reading(conversations, store, extractor, manager.name)
    for steps in reading.steps():
        build.take(steps)
        if on_step is not None:
            on_step(reading.num_read, reading.num_turns)
    build.finish()
    if on_step is not None:
        on_step(reading.num_turns, reading.num_turns)
    return _summarise(conversations, store, build.num_facts, time.monotonic() - started)


def read_conversations(
    conversations: Sequence[Conversation],
    manager: ManagerPolicy,
    extractor: FactExtractor,
    store: BankStore,
    *,
    entries_per_turn: int,
    embedder: Embedder,
) -> None:
    """The same for training, where a Manager whose outputs cannot be read is data: it is not judged, only journaled.

    Raises GenerationFailed.
    """
    build = _Build(manager, store, embedder, entries_per_turn)
    for steps in _Reading(conversations, store, extractor, manager.name).steps():
        build.take(steps)


class _Reading:
    """Walks all conversations side by side and stops at the next turn of each that has facts."""

    def __init__(
        self, conversations: Sequence[Conversation], store: BankStore, extractor: FactExtractor, policy: str
    ) -> None:
        self._store, self._extractor, self._policy = store, extractor, policy
        self._left = {item.id: unread_turns(item, store.bank(item.id).journal()) for item in conversations}
        self.num_turns = sum(len(item.turns()) for item in conversations)
        self.num_read = self.num_turns - sum(map(len, self._left.values()))

    def steps(self) -> Iterator[list[_Step]]:
        """One batch after another: at most one turn of each conversation."""
        while any(self._left.values()):
            steps: dict[str, _Step] = {}
            while waiting := [turns.pop(0) for key, turns in self._left.items() if turns and key not in steps]:
                self.num_read += len(waiting)
                steps.update(self._find_facts(waiting))
            yield list(steps.values())

    def _find_facts(self, waiting: Sequence[Spoken]) -> Iterator[tuple[str, _Step]]:
        for (conversation, session, turn), facts in zip(waiting, self._extractor.extract(waiting), strict=True):
            if facts:
                source = Source(turn_id=turn.id, speaker=turn.speaker, time=session.time, policy=self._policy)
                texts = tuple(fact.text for fact in facts)
                yield conversation.id, _Step(self._store.bank(conversation.id), source, texts)


_Decided = tuple[_Step, ManagerDecision]


class _Build:
    """Lets the Manager decide on batches of turns and applies what it decides."""

    def __init__(self, manager: ManagerPolicy, store: BankStore, embedder: Embedder, entries_per_turn: int) -> None:
        self._manager, self._store, self._embedder = manager, store, embedder
        self._entries_per_turn = entries_per_turn
        self.num_facts = 0

    def take(self, steps: Sequence[_Step]) -> None:
        """Decide on a batch and apply what was decided."""
        if steps:
            self.num_facts += sum(len(step.facts) for step in steps)
            self._apply(list(zip(steps, self._decide(steps), strict=True)))

    def _decide(self, steps: Sequence[_Step]) -> list[ManagerDecision]:
        self._embedder.embed([step.embedded_query for step in steps])  # remembered: one batch, not one call each
        return self._manager.decide(
            [
                ManagerRequest(
                    scope=step.bank.scope,
                    speaker=step.source.speaker,
                    time=step.source.time,
                    turn_id=step.source.turn_id,
                    facts=step.facts,
                    memories=tuple(
                        step.bank.retrieve(step.query, speaker=step.source.speaker, limit=self._entries_per_turn)
                    ),
                )
                for step in steps
            ]
        )

    def _apply(self, decided: Sequence[_Decided]) -> None:
        texts = [operation.text for _, decision in decided for operation in decision.operations if operation.text]
        self._embedder.embed(list(dict.fromkeys(texts)))
        with self._store.group_commits():
            for step, decision in decided:
                step.bank.apply(decision.operations, step.source.model_copy(update={"failure": decision.failure}))


class _JudgedBuild(_Build):
    """Until a first output can be read nothing is journaled: failures change no bank, and a build with a better model
    must find the turns unread."""

    def __init__(self, manager: ManagerPolicy, store: BankStore, embedder: Embedder, entries_per_turn: int) -> None:
        super().__init__(manager, store, embedder, entries_per_turn)
        self._unreadable: list[_Decided] | None = []  # None once an output could be read

    def finish(self) -> None:
        """Journal what is held back, or raise AgentError when that is all there is."""
        if self._unreadable:
            self._refuse_garbage(MIN_OUTPUTS_AT_END)
            super()._apply(self._unreadable)

    def _apply(self, decided: Sequence[_Decided]) -> None:
        if self._unreadable is None:
            super()._apply(decided)
            return
        self._unreadable += decided
        if all(decision.failure is not None for _, decision in decided):
            self._refuse_garbage(MIN_OUTPUTS_TO_JUDGE)
            return
        held, self._unreadable = self._unreadable, None
        super()._apply(held)

    def _refuse_garbage(self, min_outputs: int) -> None:
        failures = [decision for _, decision in self._unreadable or ()]
        if len(failures) >= min_outputs:
            raise AgentError(
                f"none of the {len(failures)} outputs of the Memory Manager {self._manager.name} can be read as "
                f"operations ({failures[0].reason}). The first: {str(failures[0].failure)[:200]!r}. Choose another "
                "model, or the prompt form that it knows."
            )


def unread_turns(conversation: Conversation, journal: Sequence[JournalRecord]) -> list[Spoken]:
    """The turns behind the last one in the journal. Raises BankError when the conversation has no such turn."""
    turns = [(conversation, session, turn) for session, turn in conversation.turns()]
    if not journal:
        return turns
    last = journal[-1].source.turn_id
    for place, (_, _, turn) in enumerate(turns, 1):
        if turn.id == last:
            return turns[place:]
    raise BankError(
        f"the journal of scope {conversation.id!r} ends at turn {last!r}, which conversation {conversation.id!r} does "
        "not have: it was built from other conversations. Give the build a folder of its own."
    )


def _summarise(conversations: Sequence[Conversation], store: BankStore, num_facts: int, seconds: float) -> BuildSummary:
    banks = [store.bank(conversation.id) for conversation in conversations]
    records = [record for bank in banks for record in bank.journal()]
    failures = tuple(
        FailedOutput(conversation_id=record.scope, turn_id=record.source.turn_id, text=record.source.failure)
        for record in records
        if record.source.failure is not None
    )
    decided = Counter(record.operation.kind for record in records if record.source.failure is None)
    return BuildSummary(
        num_turns=sum(len(conversation.turns()) for conversation in conversations),
        num_facts=num_facts,
        num_calls=len({(record.scope, record.source.turn_id) for record in records}),
        num_parse_failures=len(failures),
        failures=failures,
        operations={kind: decided[kind] for kind in OPERATION_KINDS},
        num_entries=sum(len(bank.entries()) for bank in banks),
        seconds=seconds,
    )
