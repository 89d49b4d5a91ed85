"""Rollouts over several turns: the policy reads sessions as the bank builder does, all rollouts in lockstep.

A trajectory reads a conversation's first sessions into an empty bank. A reread reads one of these sessions again, from
the bank that its parent trajectory had before it. Nothing here knows torch: `SamplePrompts` is the policy.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from memr1.agents.bank_builder import read_conversations
from memr1.agents.fact_extractor import FactExtractor, Spoken
from memr1.agents.memory_manager import ManagerDecision, ManagerRequest, read_decision
from memr1.agents.prompting import PromptForm, render_manager_prompt
from memr1.bank.bank import fold_journal
from memr1.bank.embedding import Embedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryBank
from memr1.data.conversation import Conversation, Fact


@dataclass(frozen=True)
class Sample:
    """What the policy was shown and what it said, in tokens. The end token is among those of the completion."""

    text: str
    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    is_cut_off: bool


SamplePrompts = Callable[[Sequence[str]], list[Sample]]


@dataclass(frozen=True)
class RolloutStart:
    """Where a rollout begins: `conversation` holds the sessions to read, `entries` the bank before them."""

    group: str
    number: int  # in its group
    conversation: Conversation
    entries: tuple[MemoryEntry, ...] = ()

    @property
    def scope(self) -> str:
        """The scope of its bank: rollouts of one conversation know nothing of each other."""
        return f"{self.group}#{self.number}"


@dataclass(frozen=True)
class Rollout:
    """What was read and decided, turn by turn, and the bank it ended with."""

    start: RolloutStart
    bank: InMemoryBank
    turns: list[tuple[Sample, ManagerDecision]] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """What rollouts read with: the same as the bank builder of the run."""

    extractor: FactExtractor
    embedder: Embedder
    prompt: PromptForm
    entries_per_turn: int

    def roll_out(self, starts: Sequence[RolloutStart], sample: SamplePrompts) -> list[Rollout]:
        """Read all starts in lockstep, one batch of prompts per turn index; rollouts in the order of the starts."""
        rollouts = {
            start.scope: Rollout(start, InMemoryBank(start.scope, self.embedder, entries=_rescoped(start)))
            for start in starts
        }
        read_conversations(
            [start.conversation.model_copy(update={"id": start.scope}) for start in starts],
            _SamplingManager(self.prompt, sample, rollouts),
            _FactsOfOriginals(self.extractor, {start.scope: start.conversation for start in starts}),
            _RolloutBanks(rollouts),
            entries_per_turn=self.entries_per_turn,
            embedder=self.embedder,
        )
        return list(rollouts.values())


def first_sessions(conversation: Conversation, num_sessions: int) -> Conversation:
    """The beginning of a conversation."""
    return conversation.model_copy(update={"sessions": conversation.sessions[:num_sessions]})


def bank_before(trajectory: Rollout, session: int) -> tuple[MemoryEntry, ...]:
    """The entries as the trajectory had them before its `session`-th session (counted from 0)."""
    sessions = trajectory.start.conversation.sessions[:session]
    earlier = {turn.id for part in sessions for turn in part.turns}
    journal = [record for record in trajectory.bank.journal() if record.source.turn_id in earlier]
    return tuple(fold_journal(journal, trajectory.bank.scope))


def start_reread(trajectory: Rollout, session: int, group: str, number: int) -> RolloutStart:
    """The start of a reread of one session of a trajectory."""
    conversation = trajectory.start.conversation
    only = conversation.model_copy(update={"sessions": conversation.sessions[session : session + 1]})
    return RolloutStart(group, number, only, bank_before(trajectory, session))


def altered_before(rollout: Rollout) -> set[str]:
    """The source turns of every entry that the rollout updated or deleted, as these entries were."""
    return {turn_id for record in rollout.bank.journal() if record.before for turn_id in record.before.turn_ids}


def _rescoped(start: RolloutStart) -> list[MemoryEntry]:
    return [entry.model_copy(update={"scope": start.scope}) for entry in start.entries]


class _SamplingManager:
    """The policy as ManagerPolicy: keeps what it saw and said with the rollout whose turn it was."""

    name = "rollout"

    def __init__(self, prompt: PromptForm, sample: SamplePrompts, rollouts: Mapping[str, Rollout]) -> None:
        self._prompt: PromptForm = prompt
        self._sample = sample
        self._rollouts = rollouts

    def decide(self, requests: Sequence[ManagerRequest]) -> list[ManagerDecision]:
        """One decision per request, in order."""
        prompts = [render_manager_prompt(self._prompt, request.memories, request.facts) for request in requests]
        samples = self._sample(prompts)
        decisions = [read_decision(said.text, request) for said, request in zip(samples, requests, strict=True)]
        for request, said, decision in zip(requests, samples, decisions, strict=True):
            self._rollouts[request.scope].turns.append((said, decision))
        return decisions


class _FactsOfOriginals:
    """Extracts from the conversations that the rollouts read, so that what an extractor remembers serves all."""

    def __init__(self, extractor: FactExtractor, originals: Mapping[str, Conversation]) -> None:
        self._extractor, self._originals = extractor, originals

    def extract(self, turns: Sequence[Spoken]) -> list[list[Fact]]:
        """The facts of each turn, in order."""
        return self._extractor.extract([(self._originals[copy.id], session, turn) for copy, session, turn in turns])


class _RolloutBanks:
    """The banks of all rollouts as BankStore."""

    def __init__(self, rollouts: Mapping[str, Rollout]) -> None:
        self._rollouts = rollouts

    def bank(self, scope: str) -> InMemoryBank:
        """The bank of a rollout."""
        return self._rollouts[scope].bank

    def scopes(self) -> list[str]:
        """The scopes of all rollouts."""
        return list(self._rollouts)

    def group_commits(self) -> AbstractContextManager[None]:
        """Nothing is kept."""
        return nullcontext()

    def close(self) -> None:
        """Nothing is open."""
