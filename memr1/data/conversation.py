"""What a dataset is made of: conversations of dated sessions of turns, and questions about them."""

from datetime import datetime
from typing import Literal

from memr1.records import Record

OperationKind = Literal["ADD", "UPDATE", "DELETE", "NOOP"]
SplitName = Literal["train", "validation", "test"]


class Turn(Record):
    """One utterance. `id` is unique inside its conversation and is what evidence refers to (LoCoMo: "D3:11")."""

    id: str
    speaker: str
    text: str
    image_caption: str | None = None


class Session(Record):
    """Turns spoken in one sitting, at `time` (local to the speakers, without zone)."""

    id: str
    time: datetime
    turns: tuple[Turn, ...]


class Fact(Record):
    """A candidate statement, not yet stored: who it is about, what it says, and the turn it was taken from."""

    speaker: str
    text: str
    turn_id: str


class ExpectedOperation(Record):
    """What a faultless Memory Manager does at a turn. Known for synthetic conversations only."""

    turn_id: str
    kind: OperationKind
    text: str = ""  # the entry's text afterwards; empty for DELETE and NOOP
    replaces: str = ""  # the entry's text before; empty for ADD and NOOP


class Conversation(Record):
    """Everything two or more speakers said to each other, oldest session first."""

    id: str
    speakers: tuple[str, ...]
    sessions: tuple[Session, ...]
    facts: tuple[Fact, ...] = ()  # statements that came with the dataset (LoCoMo's observations)
    expected_operations: tuple[ExpectedOperation, ...] = ()

    def turns(self) -> list[tuple[Session, Turn]]:
        """Every turn in spoken order, with the session it belongs to."""
        return [(session, turn) for session in self.sessions for turn in session.turns]


class Question(Record):
    """A question about one conversation. `category` is the dataset's own integer; see docs/data.md for names.

    `evidence` lists the ids of the turns that the answer rests on, in spoken order; it may be empty.
    """

    id: str
    conversation_id: str
    text: str
    answer: str
    category: int
    evidence: tuple[str, ...] = ()


class RejectedRow(Record):
    """Something of a dataset that was not taken over, and why: a line of 1_data/rejected.jsonl."""

    kind: Literal["session", "turn", "fact", "question", "evidence"]
    id: str  # of the conversation, turn or question it stood in
    field: str
    value: str
    reason: str


class Splits(Record):
    """Which conversations train, which choose checkpoints, which are only ever scored."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


class Dataset(Record):
    """A whole dataset in memory. `licence_notice` is printed and written into the model card when not empty.

    `left_out` is what its loader did not take over; validation adds the rows that a suite tolerates but removes.
    """

    name: str
    sha256: str
    licence_notice: str = ""
    conversations: tuple[Conversation, ...]
    questions: tuple[Question, ...]
    splits: Splits
    left_out: tuple[RejectedRow, ...] = ()

    def conversations_of(self, *splits: SplitName) -> list[Conversation]:
        """The conversations of these splits, in the splits' order."""
        by_id = {conversation.id: conversation for conversation in self.conversations}
        return [by_id[key] for split in splits for key in getattr(self.splits, split)]
