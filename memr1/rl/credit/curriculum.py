"""What a step reads. Everything follows from the seed and the step number, so all ranks agree and a resume goes on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from memr1.data.conversation import Conversation, Question
from memr1.rl.examples import LinkedQuestion, link_questions
from memr1.training_options import CurriculumStage, LocalGlobalCredit

Questions = tuple[LinkedQuestion, ...]


@dataclass(frozen=True)
class AskedConversation:
    """A conversation, and for each of its sessions the questions that can be answered from that session on."""

    conversation: Conversation
    questions: tuple[Questions, ...]

    def answerable(self, num_sessions: int) -> Questions:
        """The questions that can be answered once the first `num_sessions` sessions were read."""
        return tuple(question for asked in self.questions[:num_sessions] for question in asked)


@dataclass(frozen=True)
class PlannedReread:
    """A session to read again, from the bank before it in one trajectory."""

    session: int  # place in the conversation
    parent: int  # number of the trajectory
    questions: Questions  # answerable from this session on
    retention: Questions  # answerable before it: asked when a reread alters an entry that they rest on


@dataclass(frozen=True)
class PlannedReading:
    """A conversation of a step: how far its trajectories go, what scores them, which sessions are read again."""

    place: int  # in the step
    conversation: Conversation
    num_sessions: int
    questions: Questions
    rereads: tuple[PlannedReread, ...]


def ask_conversation(conversation: Conversation, questions: Sequence[Question]) -> AskedConversation:
    """Attribute each question to the session of its last evidence; one without evidence scores nothing."""
    linked = link_questions(questions)
    return AskedConversation(
        conversation,
        tuple(
            tuple(question for turn in session.turns for question in linked.get(turn.id, ()))
            for session in conversation.sessions
        ),
    )


def sessions_at(curriculum: Sequence[CurriculumStage], step: int) -> int:
    """How many sessions are read at a step (counted from 0). The last stage lasts to the end of training."""
    end = 0
    for stage in curriculum:
        end += stage.num_steps
        if step < end:
            return stage.num_sessions
    return curriculum[-1].num_sessions


def plan_step(
    asked: Sequence[AskedConversation], credit: LocalGlobalCredit, step: int, seed: int
) -> list[PlannedReading]:
    """The readings of a step. Conversations without a question in the sessions of the stage are left out.

    The trajectories take turns in lending their banks to rereads, so that the ranks they lie on share the work.
    """
    num_sessions = sessions_at(credit.curriculum, step)
    rng = random.Random(f"{seed}/{step}")
    usable = [item for item in asked if item.answerable(num_sessions)]
    readings: list[PlannedReading] = []
    num_rereads = rng.randrange(credit.num_trajectories)
    for place, item in enumerate(conversations_at(usable, credit.conversations_per_step, step, seed)):
        rereads: list[PlannedReread] = []
        for session, own in enumerate(item.questions[:num_sessions]):
            if own and rng.random() < credit.reread_probability:
                parent = (num_rereads + len(rereads)) % credit.num_trajectories
                drawn = _draw(rng, own, credit.max_questions)
                rereads.append(PlannedReread(session, parent, drawn, item.answerable(session)))
        num_rereads += len(rereads)
        questions = _draw(rng, item.answerable(num_sessions), credit.max_questions)
        readings.append(PlannedReading(place, item.conversation, num_sessions, questions, tuple(rereads)))
    return readings


def conversations_at(
    usable: Sequence[AskedConversation], per_step: int, step: int, seed: int
) -> list[AskedConversation]:
    """The conversations of a step: all are read once, in a seeded order, before one is read a second time."""
    orders: dict[int, list[AskedConversation]] = {}
    chosen: list[AskedConversation] = []
    for number in range(step * per_step, (step + 1) * per_step):
        epoch, place = divmod(number, len(usable))
        if epoch not in orders:
            orders[epoch] = random.Random(f"{seed}/epoch {epoch}").sample(list(usable), len(usable))
        chosen.append(orders[epoch][place])
    return chosen


def count_most_turns(asked: Sequence[AskedConversation], credit: LocalGlobalCredit) -> int:
    """The most turns that one step can hold, over all ranks: the longest conversations, every session read again."""
    num_sessions = max(stage.num_sessions for stage in credit.curriculum)
    lengths = [
        sum(len(session.turns) for session in item.conversation.sessions[:num_sessions])
        for item in asked
        if item.answerable(num_sessions)
    ]
    longest = sum(sorted(lengths, reverse=True)[: credit.conversations_per_step])
    return longest * (credit.num_trajectories + (credit.num_rereads if credit.reread_probability else 0))


def _draw(rng: random.Random, questions: Questions, limit: int) -> Questions:
    """At most `limit` of them, in their order."""
    places = rng.sample(range(len(questions)), min(limit, len(questions)))
    return tuple(questions[place] for place in sorted(places))
