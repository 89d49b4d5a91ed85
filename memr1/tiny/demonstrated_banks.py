"""The banks of stage 1: who and what is remembered, and in which entries it stands.

Drawn as a Memory Manager that is still learning leaves them: most facts in one entry with what it replaced, some in a
stale entry and a new one. Entries are shown in any order; the stale one stands first in most cases, as retrieval ranks
them.
"""

import random
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from memr1.bank.entry import MemoryEntry
from memr1.data.conversation import SplitName
from memr1.data.synthetic import World
from memr1.data.synthetic_relations import RELATIONS, Relation, entry_text
from memr1.data.synthetic_words import list_words
from memr1.records import Record
from memr1.tiny.forms import YEARS, list_dates
from memr1.tiny.invented import MAX_LETTERS, MAX_LONG_LETTERS, invent_word

CAPITALISED = ("name", "city", "dog", "car", "language", "country")
STALE_SHARE = 0.12  # of the facts: what is current and what was stand in entries of their own
CHANGED_SHARE = 0.45  # of the facts, the stale among them
FIRST_YEARS = (YEARS[0], YEARS[0] + 2)  # of a fact's first change
LATER_YEARS = (YEARS[0] + 3, YEARS[1])  # of the others


class Words(Record):
    """Where names and values come from: a split of the world, or invented."""

    split: SplitName = "train"
    invented_names: float = 0.7
    invented_values: float = 0.5


class Deck:
    """The names and values of one bank. As in the world's conversations, no two facts of a bank share a word."""

    def __init__(self, rng: random.Random, words: Words, *, easy: bool) -> None:
        self._rng, self._words, self._easy = rng, words, easy
        self._drawn: set[str] = set()

    def draw(self, kind: str) -> str:
        """A name (kind "name") or a value of a kind that the bank will hold."""
        word = self.peek(kind)
        self._drawn.add(word)
        return word

    def peek(self, kind: str) -> str:
        """One that the bank does not hold; a list that is used up is followed by invented words."""
        words, rng = self._words, self._rng
        listed = [word for word in list_words(kind, words.split, easy=self._easy) if word not in self._drawn]
        if listed and rng.random() >= (words.invented_names if kind == "name" else words.invented_values):
            return rng.choice(listed)
        longest = MAX_LETTERS if self._easy else MAX_LONG_LETTERS
        while True:
            word = invent_word(rng, capital=kind in CAPITALISED, max_letters=longest)
            if word not in self._drawn:
                return word


class Telling(NamedTuple):
    """A person of a bank and the speaker who tells about them: the same, or a friend."""

    person: str
    speaker: str

    @property
    def mention(self) -> str:
        """How the speaker's sentences name the person; empty: in the first person."""
        return "" if self.person == self.speaker else f"my friend {self.person}"


class Known(NamedTuple):
    """A fact of a bank."""

    teller: Telling
    relation: Relation
    values: tuple[str, ...]  # oldest first
    since: str = ""  # the month of the last change; empty where changes carry none


class Shown(NamedTuple):
    """An entry in the prompt: its number, its text, the fact behind it, and those of its values that it holds."""

    number: int
    text: str
    fact: Known
    values: tuple[str, ...]

    @property
    def seen(self) -> str:
        """What the entry says of the person after the relation: values and month."""
        return self.text.removeprefix(f"{self.fact.teller.person} {self.fact.relation.phrase} ")

    @property
    def former(self) -> str:
        """The value before the current one; empty where the entry holds none."""
        return self.values[-2] if len(self.values) > 1 else ""


def draw_tellings(rng: random.Random, deck: Deck, world: World, num_speakers: int) -> list[list[Telling]]:
    """One list for every speaker: the speaker, then friends if the world has any."""
    num_friends = [
        rng.randint(0, world.people_per_conversation - 2) if world.people_per_conversation > 2 else 0
        for _ in range(num_speakers)
    ]
    groups: list[list[Telling]] = []
    for count in num_friends:
        speaker = deck.draw("name")
        friends = [deck.draw("name") for _ in range(min(count, 2))]
        groups.append([Telling(person, speaker) for person in (speaker, *friends)])
    return groups


def draw_facts(
    rng: random.Random, deck: Deck, world: World, tellings: Sequence[Telling], max_facts: int
) -> list[Known]:
    """Up to `max_facts` facts of distinct (person, relation); none at all in one bank of twelve."""
    count = 0 if rng.random() < 1 / 12 else rng.randint(max(1, max_facts - 3), max_facts)
    pool = rng.sample(RELATIONS, min(len(RELATIONS), 2 + count // len(tellings)))  # people share some
    pairs = [(teller, relation) for teller in tellings for relation in pool]
    facts: list[Known] = []
    for teller, relation in rng.sample(pairs, min(count, len(pairs))):
        num_changes = rng.randint(1, world.changes_per_fact) if rng.random() < CHANGED_SHARE else 0
        values = tuple(deck.draw(relation.kind) for _ in range(num_changes + 1))
        years = LATER_YEARS if num_changes > 1 else FIRST_YEARS
        since = rng.choice(list_dates(*years)) if num_changes and world.dated_changes else ""
        facts.append(Known(teller, relation, values, since))
    return facts


def show_entries(rng: random.Random, groups: Sequence[Sequence[Known]], entries_per_speaker: int) -> list[Shown]:
    """The entries of every speaker's facts in any order, numbered through."""
    chosen = [item for facts in groups for item in _shuffle(rng, facts)[:entries_per_speaker]]
    return [Shown(number, *item) for number, item in enumerate(chosen, 1)]


def memory_entries(shown: Sequence[Shown]) -> list[MemoryEntry]:
    """What a prompt is rendered from."""
    time = datetime(2023, 1, 1)  # the compact form shows no time
    return [
        MemoryEntry(id=str(item.number), scope="", speaker=item.fact.teller.speaker, text=item.text, time=time)
        for item in shown
    ]


def _shuffle(rng: random.Random, facts: Sequence[Known]) -> list[tuple[str, Known, tuple[str, ...]]]:
    """(text, fact, values) of every entry: a stale one first in seven cases of ten."""
    placed: list[tuple[float, tuple[str, Known, tuple[str, ...]]]] = []
    for fact in facts:
        parts = [(fact.values, fact.since)]
        if len(fact.values) > 1 and rng.random() < STALE_SHARE / CHANGED_SHARE:
            cut = rng.randint(1, len(fact.values) - 1)
            stale_since = rng.choice(list_dates(*FIRST_YEARS)) if fact.since and cut > 1 else ""
            parts = [(fact.values[:cut], stale_since), (fact.values[cut:], fact.since)]
        places = sorted((rng.random() for _ in parts), reverse=rng.random() < 0.3)
        for place, (values, since) in zip(places, parts, strict=True):
            text = entry_text(fact.teller.person, fact.relation, values, since)
            placed.append((place, (text, fact, values)))
    return [entry for _, entry in sorted(placed, key=lambda pair: pair[0])]
