"""Builds the banks of many conversations in lockstep: the next turn of every conversation is one batch.

A conversation's turns must be read in order, each beside the memories that the earlier ones left. Conversations know
nothing of each other, so a model sees as many prompts at once as conversations are being read. Where one ends the next
comes in: batches stay full to the last, and memory does not grow with the number of conversations. How many are read at
once changes no bank, and not the order in which the journal begins their scopes.

The journal is the progress: a build that was killed goes on behind the last turn of each conversation that is in it,
so nothing is read twice or lost. Turns without facts cost no model call and leave no trace. An output that cannot be
read leaves the bank as it is and stands in the journal as a NOOP with `source.failure`.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
CONVERSATIONS_AT_ONCE = 256  # fill a GPU; a bank of 600 entries takes about 2 MB while it is being read
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
    conversations_at_once: int = CONVERSATIONS_AT_ONCE,
) -> BuildSummary:
    """Read every turn that the store's journal does not hold yet. `embedder` is the one that the store retrieves with.

    `conversations` may make each one when it is asked for, which is twice: their turns are counted first.
    Raises AgentError when no output at all can be read (then none of them is in the journal), GenerationFailed, and
    BankError for a journal that belongs to other conversations.
    """
    started = time.monotonic()
    num_turns = {conversation.id: len(conversation.turns()) for conversation in conversations}
    in_all = sum(num_turns.values())
    build = _JudgedBuild(manager, store, embedder, entries_per_turn)
    reading = _Reading(conversations, store, extractor, manager.name, conversations_at_once)
    for steps in reading.steps():
        build.take(steps)
        if on_step is not None:
            on_step(reading.num_read, in_all)
    build.finish()
    if on_step is not None:
        on_step(in_all, in_all)
    return _summarise(num_turns, store, build.num_facts, time.monotonic() - started)


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
    for steps in _Reading(conversations, store, extractor, manager.name, len(conversations)).steps():
        build.take(steps)


class _Reading:
    """Walks some conversations side by side and stops at the next turn of each that has facts.

    Where one has ended the next comes in. Banks are held as long as their conversation is being read.
    """

    def __init__(
        self,
        conversations: Iterable[Conversation],
        store: BankStore,
        extractor: FactExtractor,
        policy: str,
        conversations_at_once: int,
    ) -> None:
        self._coming = iter(conversations)
        self._store, self._extractor, self._policy = store, extractor, policy
        self._at_once = max(1, conversations_at_once)
        self._left: dict[str, tuple[MemoryBank, deque[Spoken]]] = {}
        self.num_read = 0

    def steps(self) -> Iterator[list[_Step]]:
        """One batch after another, at most one turn of each conversation, in the order of the conversations."""
        self._let_in()
        while self._left:
            steps: dict[str, _Step] = {}
            while waiting := [turns.popleft() for key, (_, turns) in self._left.items() if turns and key not in steps]:
                self.num_read += len(waiting)
                steps.update(self._find_facts(waiting))
            yield [steps[key] for key in self._left if key in steps]
            self._left = {key: item for key, item in self._left.items() if item[1]}
            self._let_in()

    def _let_in(self) -> None:
        while len(self._left) < self._at_once and (conversation := next(self._coming, None)) is not None:
            bank = self._store.bank(conversation.id)
            turns = unread_turns(conversation, bank.journal())
            self.num_read += len(conversation.turns()) - len(turns)
            if turns:
                self._left[conversation.id] = bank, deque(turns)

    def _find_facts(self, waiting: Sequence[Spoken]) -> Iterator[tuple[str, _Step]]:
        for (conversation, session, turn), facts in zip(waiting, self._extractor.extract(waiting), strict=True):
            if facts:
                source = Source(turn_id=turn.id, speaker=turn.speaker, time=session.time, policy=self._policy)
                bank, _ = self._left[conversation.id]
                yield conversation.id, _Step(bank, source, tuple(fact.text for fact in facts))


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


def _summarise(num_turns: Mapping[str, int], store: BankStore, num_facts: int, seconds: float) -> BuildSummary:
    """Count the journals of these conversations one by one; `num_turns` of each."""
    failures: list[FailedOutput] = []
    decided: Counter[OperationKind] = Counter()
    num_calls = num_entries = 0
    for conversation_id in num_turns:
        records = store.bank(conversation_id).journal()
        decided.update(record.operation.kind for record in records if record.source.failure is None)
        num_calls += len({record.source.turn_id for record in records})
        num_entries += sum((record.after is not None) - (record.before is not None) for record in records)
        failures += [
            FailedOutput(conversation_id=record.scope, turn_id=record.source.turn_id, text=record.source.failure)
            for record in records
            if record.source.failure is not None
        ]
    return BuildSummary(
        num_turns=sum(num_turns.values()),
        num_facts=num_facts,
        num_calls=num_calls,
        num_parse_failures=len(failures),
        failures=tuple(failures),
        operations={kind: decided[kind] for kind in OPERATION_KINDS},
        num_entries=num_entries,
        seconds=seconds,
    )
