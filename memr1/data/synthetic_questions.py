"""What is asked about a synthetic conversation, with gold answers and the turns they rest on.

The last evidence turn is the earliest point after which the gold is right and stays right.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from memr1.data.conversation import Question
from memr1.data.synthetic_story import Event, Story

NO_ANSWER = "none"


class _Asked(NamedTuple):
    category: int
    text: str
    answer: str
    evidence: tuple[str, ...]


def ask_questions(
    rng: random.Random,
    conversation_id: str,
    stories: Sequence[Story],
    events: Sequence[Event],
    turn_ids: Mapping[Event, str],
    kinds: Sequence[int],
) -> tuple[Question, ...]:
    """Every question of these kinds that the stories allow, in the order of the stories."""
    asked = [
        item
        for number, story in enumerate(stories)
        for item in _ask_about(rng, story, _turns_of(number, events, turn_ids), stories)
        if item.category in kinds
    ]
    return tuple(
        Question(
            id=f"{conversation_id}-q{number:02d}",
            conversation_id=conversation_id,
            text=item.text,
            answer=item.answer,
            category=item.category,
            evidence=item.evidence,
        )
        for number, item in enumerate(asked, 1)
    )


def _turns_of(number: int, events: Sequence[Event], turn_ids: Mapping[Event, str]) -> list[str]:
    """The turns that state something new about a story, in spoken order: repeats are no evidence."""
    return [turn_ids[event] for event in events if event.story == number and event.step != "repeat"]


def _ask_about(rng: random.Random, story: Story, turns: Sequence[str], stories: Sequence[Story]) -> Iterator[_Asked]:
    relation, name = story.relation, story.person.name
    current = story.values[-1]
    ask = rng.choice(relation.ask).format(name=name)
    if story.removed:
        yield _Asked(5, ask, NO_ANSWER, (turns[0], turns[-1]))
        return
    if len(story.values) == 1:
        yield _Asked(6, ask, current, (turns[0],))
    else:
        yield _Asked(1, ask, current, (turns[-1],))
        once = len(story.values) == 2
        former = relation.ask_former if once else relation.ask_before
        yield _Asked(2, former.format(name=name, value=current), story.values[-2], (turns[-2], turns[-1]))
    if story.dates:
        yield _Asked(3, relation.ask_when.format(name=name, value=current), story.dates[-1], (turns[-1],))
    yield from _ask_which(rng, story, turns[-1], stories)


def _ask_which(rng: random.Random, story: Story, turn: str, stories: Sequence[Story]) -> Iterator[_Asked]:
    """Which of two people, both known to have something in this relation, has this value."""
    others = [
        other.person.name for other in stories if other.relation == story.relation and other.person != story.person
    ]
    if others:
        pair = [story.person.name, rng.choice(others)]
        rng.shuffle(pair)
        text = f"Who {story.relation.phrase} {story.values[-1]}, {pair[0]} or {pair[1]}?"
        yield _Asked(4, text, story.person.name, (turn,))
