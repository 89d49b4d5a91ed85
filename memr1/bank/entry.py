"""A memory entry: one sentence that the bank holds about a conversation."""

from datetime import datetime

from memr1.records import Record


class MemoryEntry(Record):
    """`id` is unique in its scope and derives from the journal's sequence number that added the entry.

    `turn_ids` are the turns the text rests on, oldest first: an UPDATE appends its own turn.
    `time` is the time of the session that last wrote the text.
    """

    id: str
    scope: str
    speaker: str
    text: str
    time: datetime
    turn_ids: tuple[str, ...] = ()
