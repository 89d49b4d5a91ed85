"""A seeded synthetic world: people talk over several sittings, facts appear, change and vanish, and all is known.

Pure and deterministic. What a faultless Memory Manager would do at every turn is in `expected_operations`; every gold
answer can be read off the bank that those operations leave. No name and no value stands in two splits.
Left out: anything that a sentence does not say (no inference, no world knowledge, no spelling mistakes).
"""

import hashlib
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from memr1.data.conversation import Conversation, Dataset, ExpectedOperation, Question, Session, SplitName, Splits, Turn
from memr1.data.synthetic_questions import ask_questions
from memr1.data.synthetic_relations import RELATIONS, SMALL_TALK, Relation
from memr1.data.synthetic_story import Event, Person, Story, schedule_events
from memr1.data.synthetic_words import list_words
from memr1.errors import ConfigError
from memr1.records import Record

Level = Literal["easy", "full"]

CATEGORY_NAMES = {
    1: "current value of a changed fact",
    2: "former value",
    3: "when",
    4: "which of two people",
    5: "removed fact",  # gold "none"
    6: "unchanged fact",
}

_FIRST_DAY = datetime(2023, 1, 9, 18, 30)


class World(Record):
    """How hard one conversation is."""

    easy_words: bool = Field(description="Only words of at most 7 letters.")
    people_per_conversation: int = Field(ge=2, description="The two speakers and the friends they talk about.")
    changes_per_fact: int = Field(ge=1, description="A changed fact changes once up to this many times.")
    dated_changes: bool = Field(description="A change says its month, and the entry keeps it.")
    num_changed: int = Field(ge=0, description="Facts that change and stay.")
    num_steady: int = Field(ge=0, description="Facts that never change: some stay, some are removed.")
    num_removed: tuple[int, int] = Field(description="Fewest and most facts that are taken back.")
    num_repeats: int = Field(ge=0, description="Turns that say something again.")
    num_small_talk: int = Field(ge=0, description="Turns that state nothing.")
    num_sessions: int = Field(ge=1, description="Sittings, some days apart.")
    question_kinds: tuple[int, ...] = Field(description="Keys of CATEGORY_NAMES.")


WORLDS: dict[Level, World] = {
    "easy": World(
        easy_words=True,
        people_per_conversation=2,
        changes_per_fact=1,
        dated_changes=False,
        num_changed=4,
        num_steady=5,
        num_removed=(2, 3),
        num_repeats=3,
        num_small_talk=7,
        num_sessions=4,
        question_kinds=(1, 2, 5, 6),
    ),
    "full": World(
        easy_words=False,
        people_per_conversation=5,
        changes_per_fact=3,
        dated_changes=True,
        num_changed=8,
        num_steady=10,
        num_removed=(3, 5),
        num_repeats=6,
        num_small_talk=16,
        num_sessions=8,
        question_kinds=(1, 2, 3, 4, 5, 6),
    ),
}


class SyntheticOptions(Record):
    """What to build. `world` replaces the level's preset."""

    level: Level = "easy"
    num_train: int = Field(120, ge=1)
    num_validation: int = Field(10, ge=1)
    num_test: int = Field(60, ge=1)
    world: World | None = None


def build_synthetic_dataset(options: SyntheticOptions, seed: int) -> Dataset:
    """Build the dataset. `sha256` is the digest of its conversations and questions."""
    world = options.world or WORLDS[options.level]
    counts: dict[SplitName, int] = {
        "train": options.num_train,
        "validation": options.num_validation,
        "test": options.num_test,
    }
    built = {
        split: [_build_conversation(world, split, number, seed) for number in range(count)]
        for split, count in counts.items()
    }
    conversations = tuple(conversation for pairs in built.values() for conversation, _ in pairs)
    questions = tuple(question for pairs in built.values() for _, asked in pairs for question in asked)
    ids = {split: tuple(conversation.id for conversation, _ in pairs) for split, pairs in built.items()}
    return Dataset(
        name=f"synthetic/{options.level}",
        sha256=_digest([*conversations, *questions]),
        conversations=conversations,
        questions=questions,
        splits=Splits(train=ids["train"], validation=ids["validation"], test=ids["test"]),
    )


def _digest(records: Sequence[Record]) -> str:
    return hashlib.sha256("\n".join(record.model_dump_json() for record in records).encode()).hexdigest()


def _build_conversation(
    world: World, split: SplitName, number: int, seed: int
) -> tuple[Conversation, tuple[Question, ...]]:
    name = f"synthetic-{split}-{number:03d}"
    rng = random.Random(f"{seed}/{name}")
    people = _draw_people(rng, world, split)
    stories = _draw_stories(rng, world, split, people)
    events = schedule_events(rng, stories, world.num_repeats)
    lines = _mix_small_talk(rng, events, people[:2], world.num_small_talk)
    sessions, turn_ids = _seat_lines(rng, lines, world.num_sessions)
    conversation = Conversation(
        id=name,
        speakers=tuple(person.name for person in people[:2]),
        sessions=sessions,
        expected_operations=tuple(_expect(event, turn_ids[event]) for event in events),
    )
    return conversation, ask_questions(rng, name, stories, events, turn_ids, world.question_kinds)


def _draw_people(rng: random.Random, world: World, split: SplitName) -> list[Person]:
    """Two speakers, then friends: every friend is spoken of by one speaker only."""
    names = rng.sample(list_words("name", split, easy=world.easy_words), world.people_per_conversation)
    speakers = names[:2]
    friends = [Person(name=name, speaker=speakers[place % 2]) for place, name in enumerate(names[2:])]
    return [Person(name=name, speaker=name) for name in speakers] + friends


def _draw_stories(rng: random.Random, world: World, split: SplitName, people: Sequence[Person]) -> list[Story]:
    """Facts of distinct (person, relation), spread evenly over the people; every value is used once."""
    num_facts = world.num_changed + world.num_steady
    num_removed = min(rng.randint(*world.num_removed), world.num_steady)
    values = {relation.kind: _shuffled_words(rng, relation.kind, split, world) for relation in RELATIONS}
    months = list_words("month", split, easy=False)
    turns_to_change = [rng.randint(1, world.changes_per_fact) for _ in range(world.num_changed)]
    changes = turns_to_change + [0] * world.num_steady
    removed = [False] * (num_facts - num_removed) + [True] * num_removed
    stories: list[Story] = []
    for place, (num_changes, is_removed) in enumerate(zip(changes, removed, strict=True)):
        person = people[place % len(people)]
        relation = _draw_relation(rng, person, stories, values, num_changes + 1)
        drawn = tuple(values[relation.kind].pop() for _ in range(num_changes + 1))
        dates = tuple(_draw_month(rng, months, place) for place in range(num_changes)) if world.dated_changes else ()
        stories.append(Story(person=person, relation=relation, values=drawn, dates=dates, removed=is_removed))
    return stories


def _shuffled_words(rng: random.Random, kind: str, split: SplitName, world: World) -> list[str]:
    words = list_words(kind, split, easy=world.easy_words)
    return rng.sample(words, len(words))


def _draw_relation(
    rng: random.Random, person: Person, stories: Sequence[Story], values: dict[str, list[str]], num_values: int
) -> Relation:
    taken = {story.relation.phrase for story in stories if story.person == person}
    free = [r for r in RELATIONS if r.phrase not in taken and len(values[r.kind]) >= num_values]
    if not free:
        raise ConfigError(
            f"the synthetic world has no {num_values} unused values left for fact {len(stories) + 1} of a "
            "conversation: lower its num_changed, num_steady or changes_per_fact"
        )
    return rng.choice(free)


def _draw_month(rng: random.Random, months: Sequence[str], place: int) -> str:
    """A month of the `place`-th change: later changes lie in later years."""
    return f"{rng.choice(months)} {2014 + 3 * place + rng.randrange(3)}"


def _mix_small_talk(
    rng: random.Random, events: Sequence[Event], speakers: Sequence[Person], num_small_talk: int
) -> list[tuple[str, str, Event | None]]:
    """(speaker, text, event or None) in spoken order."""
    lines: list[tuple[str, str, Event | None]] = [(event.speaker, event.text, event) for event in events]
    for _ in range(num_small_talk):
        line = (rng.choice(speakers).name, rng.choice(SMALL_TALK), None)
        lines.insert(rng.randint(0, len(lines)), line)
    return lines


def _seat_lines(
    rng: random.Random, lines: Sequence[tuple[str, str, Event | None]], num_sessions: int
) -> tuple[tuple[Session, ...], dict[Event, str]]:
    """Cut the lines into sittings of like length, some days apart; also the turn id of every event."""
    turn_ids: dict[Event, str] = {}
    sessions: list[Session] = []
    time = _FIRST_DAY
    for number in range(num_sessions):
        part = lines[len(lines) * number // num_sessions : len(lines) * (number + 1) // num_sessions]
        turns: list[Turn] = []
        for place, (speaker, text, event) in enumerate(part, 1):
            turns.append(Turn(id=f"D{number + 1}:{place}", speaker=speaker, text=text))
            if event is not None:
                turn_ids[event] = turns[-1].id
        sessions.append(Session(id=f"D{number + 1}", time=time, turns=tuple(turns)))
        time += timedelta(days=rng.randint(2, 20), minutes=rng.randint(-90, 90))
    return tuple(sessions), turn_ids


def _expect(event: Event, turn_id: str) -> ExpectedOperation:
    return ExpectedOperation(turn_id=turn_id, kind=event.operation, text=event.after, replaces=event.before)
