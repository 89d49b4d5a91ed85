"""The four operations of a Memory Manager, and the journal record of one that was applied."""

from datetime import datetime

from memr1.bank.entry import MemoryEntry
from memr1.data.conversation import OperationKind
from memr1.records import Record


class Operation(Record):
    """What a Memory Manager wants changed.

    ADD needs `text`; UPDATE needs `entry_id` and `text`; DELETE needs `entry_id`; NOOP needs nothing.
    """

    kind: OperationKind
    text: str = ""
    entry_id: str = ""


class Source(Record):
    """Where an operation comes from: the turn that was read, who spoke it when, and which policy decided.

    `failure` is what the policy said when that could not be read: the NOOP beside it is not the policy's.
    """

    turn_id: str
    speaker: str
    time: datetime
    policy: str
    failure: str | None = None


class JournalRecord(Record):
    """One applied operation. The entries of a bank are a fold over its journal (`memr1.bank.bank.fold_journal`)."""

    scope: str
    sequence: int  # 1, 2, 3 … in each scope, without gaps
    operation: Operation
    before: MemoryEntry | None = None
    after: MemoryEntry | None = None
    source: Source
    num_following: int = 0  # records of the same apply behind this one: a torn apply is dropped whole
