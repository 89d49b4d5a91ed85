"""How one fact fares over a conversation, and the order in which all of them are spoken of."""

import random
from collections.abc import Iterator, Sequence

from memr1.data.conversation import OperationKind
from memr1.data.synthetic_relations import Relation, StatementKind, entry_text, say
from memr1.records import Record


class Person(Record):
    """Somebody, and the speaker who tells about them: themselves, or the friend who knows them."""

    name: str
    speaker: str


class Story(Record):
    """One fact: its values, oldest first, the month of every change, and whether it is taken back in the end."""

    person: Person
    relation: Relation
    values: tuple[str, ...]
    dates: tuple[str, ...] = ()  # of values[1:]; empty where changes carry no date
    removed: bool = False

    def text(self, num_values: int) -> str:
        """The canonical entry once the first `num_values` values were told."""
        since = self.dates[num_values - 2] if self.dates and num_values > 1 else ""
        return entry_text(self.person.name, self.relation, self.values[:num_values], since)


class Event(Record):
    """One turn that states something. `before` and `after` are the entry's texts; empty where there is none."""

    story: int  # place in the list of stories
    step: StatementKind
    place: int  # of this event in its story
    speaker: str
    text: str
    operation: OperationKind
    before: str = ""
    after: str = ""


_OPERATIONS: dict[StatementKind, OperationKind] = {
    "new": "ADD", "change": "UPDATE", "removal": "DELETE", "repeat": "NOOP",
}  # fmt: skip


def schedule_events(rng: random.Random, stories: Sequence[Story], num_repeats: int) -> list[Event]:
    """Every event of every story in spoken order: a story's own events keep theirs, stories interleave at random."""
    repeated = set(rng.sample(range(len(stories)), min(num_repeats, len(stories))))
    timed: list[tuple[float, Event]] = []
    for number, story in enumerate(stories):
        events = list(_tell_story(rng, number, story, number in repeated))
        timed += zip(sorted(rng.random() for _ in events), events, strict=True)
    return [event for _, event in sorted(timed, key=lambda pair: pair[0])]


def _tell_story(rng: random.Random, number: int, story: Story, repeated: bool) -> Iterator[Event]:
    """new, changes, perhaps one repeat after any of these, perhaps the removal."""
    repeat_after = rng.randrange(len(story.values)) if repeated else -1
    place = 0
    for told, value in enumerate(story.values):
        before = story.text(told) if told else ""
        yield _event(rng, number, story, "change" if told else "new", place, value, before, story.text(told + 1))
        place += 1
        if told == repeat_after:
            yield _event(rng, number, story, "repeat", place, value)
            place += 1
    if story.removed:
        last = story.values[-1]
        yield _event(rng, number, story, "removal", place, last, before=story.text(len(story.values)))


def _event(
    rng: random.Random,
    number: int,
    story: Story,
    step: StatementKind,
    place: int,
    value: str,
    before: str = "",
    after: str = "",
) -> Event:
    person = story.person
    about = "" if person.name == person.speaker else f"my friend {person.name}"
    text = say(rng, story.relation, step, value, about)
    if step == "change" and story.dates:
        date = story.dates[story.values.index(value) - 1]
        text = f"Since {date}: {text}"
    return Event(
        story=number,
        step=step,
        place=place,
        speaker=person.speaker,
        text=text,
        operation=_OPERATIONS[step],
        before=before,
        after=after,
    )
