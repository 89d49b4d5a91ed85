"""What another Memory Manager would have made of the same turns: a journal's turns read again, both banks compared."""

from collections.abc import Callable, Sequence

from memr1.agents.bank_builder import BuildSummary, build_banks
from memr1.agents.fact_extractor import FactExtractor
from memr1.agents.memory_manager import ManagerPolicy
from memr1.bank.bank import BankStore, fold_journal
from memr1.bank.embedding import Embedder
from memr1.bank.history import BankDifference, compare_banks
from memr1.bank.journal import records_by_scope
from memr1.bank.operation import JournalRecord
from memr1.data.conversation import Conversation
from memr1.errors import BankError
from memr1.records import Record


class ReplayedBank(Record):
    """One scope: what the first policy made of its turns against what the second did."""

    scope: str
    num_turns: int
    difference: BankDifference


def replay_journal(
    journal: Sequence[JournalRecord],
    conversations: Sequence[Conversation],
    manager: ManagerPolicy,
    extractor: FactExtractor,
    store: BankStore,
    *,
    entries_per_turn: int,
    embedder: Embedder,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[list[ReplayedBank], BuildSummary]:
    """Let `manager` read, into the empty `store`, every turn up to the journal's last one of each scope.

    Raises BankError for a scope without a conversation, a turn that its conversation does not have, or a store that
    has been used; and what `build_banks` raises.
    """
    if store.scopes():
        raise BankError(
            f"the store to replay into holds scope {store.scopes()[0]!r} already: give it a folder of its own"
        )
    by_scope = records_by_scope(journal)
    known = {conversation.id: conversation for conversation in conversations}
    read = [_cut_behind_last(known, scope, records) for scope, records in by_scope.items()]
    summary = build_banks(
        read, manager, extractor, store, entries_per_turn=entries_per_turn, embedder=embedder, on_step=on_step
    )
    return [_compare(conversation, by_scope[conversation.id], store) for conversation in read], summary


def _cut_behind_last(known: dict[str, Conversation], scope: str, records: Sequence[JournalRecord]) -> Conversation:
    """The conversation up to the latest turn that the journal has read."""
    if scope not in known:
        raise BankError(f"no conversation {scope!r} for this scope of the journal: give the run whose bank this is")
    conversation = known[scope]
    order = [turn.id for _, turn in conversation.turns()]
    heard = {record.source.turn_id for record in records}
    strange = heard.difference(order)
    if strange:
        raise BankError(f"conversation {scope!r} has no turn {min(strange)!r}, which the journal has read")
    kept = set(order[: max(order.index(turn_id) for turn_id in heard) + 1])
    sessions = [
        session.model_copy(update={"turns": tuple(turn for turn in session.turns if turn.id in kept)})
        for session in conversation.sessions
    ]
    return conversation.model_copy(update={"sessions": tuple(session for session in sessions if session.turns)})


def _compare(conversation: Conversation, records: Sequence[JournalRecord], store: BankStore) -> ReplayedBank:
    return ReplayedBank(
        scope=conversation.id,
        num_turns=len(conversation.turns()),
        difference=compare_banks(fold_journal(records, conversation.id), store.bank(conversation.id).entries()),
    )
