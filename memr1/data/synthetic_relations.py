"""What the people of the synthetic world say about themselves and each other, and what they are asked.

A sentence holds `{value}` and forms `[of the speaker|of a third person]`, where the third person is `{name}`.
"""

import random
import re
from collections.abc import Iterator
from typing import Literal

from memr1.records import Record

StatementKind = Literal["new", "change", "removal", "repeat"]

_FORMS = re.compile(r"\[([^|\]]*)\|([^\]]*)\]")


class Relation(Record):
    """Something a person has one value of. Its entry reads "<person> <phrase> <value>"."""

    phrase: str
    kind: str  # key of synthetic_words.VALUES
    new: tuple[str, ...]
    change: tuple[str, ...]
    removal: tuple[str, ...]
    repeat: tuple[str, ...]
    ask: tuple[str, ...]  # the value
    ask_former: str  # the value before the only change
    ask_before: str  # the value before {value}
    ask_when: str  # the time of the change to {value}


RELATIONS: tuple[Relation, ...] = (
    Relation(
        phrase="lives in",
        kind="city",
        new=("[I live|{name} lives] in {value}.", "[My|{name}'s] home is in {value}."),
        change=("[I|{name}] moved to {value}.", "[I have|{name} has] a new home in {value} now."),
        removal=("[I|{name}] moved out of {value} and [have|has] no home.", "[I|{name}] gave up the flat in {value}."),
        repeat=("As I said, [I live|{name} lives] in {value}.", "[I|{name}] still [like|likes] living in {value}."),
        ask=("Where does {name} live?", "Which town is home to {name}?"),
        ask_former="Where did {name} live before?",
        ask_before="Where did {name} live before {value}?",
        ask_when="When did {name} move to {value}?",
    ),
    Relation(
        phrase="works as a",
        kind="job",
        new=("[I work|{name} works] as a {value}.", "[I make|{name} makes] a living as a {value}."),
        change=("[I|{name}] found new work as a {value}.", "[I|{name}] changed jobs to become a {value}."),
        removal=("[I|{name}] quit the job as a {value}.", "[I|{name}] stopped working as a {value}."),
        repeat=("As I said, [I work|{name} works] as a {value}.", "[I enjoy|{name} enjoys] working as a {value}."),
        ask=("What does {name} work as?", "What is the job of {name}?"),
        ask_former="What did {name} work as before?",
        ask_before="What did {name} work as before becoming a {value}?",
        ask_when="When did {name} start to work as a {value}?",
    ),
    Relation(
        phrase="has a dog named",
        kind="dog",
        new=("[I have|{name} has] a dog named {value}.", "[My|{name}'s] dog is called {value}."),
        change=("[I|{name}] got another dog, {value}.", "[My|{name}'s] new dog is called {value}."),
        removal=("[I|{name}] gave the dog {value} away.", "[My|{name}'s] dog {value} ran off for good."),
        repeat=("As I said, [my|{name}'s] dog is called {value}.", "[I|{name}] took the dog {value} for a walk."),
        ask=("What is the dog of {name} called?", "Which dog does {name} have?"),
        ask_former="Which dog did {name} have before?",
        ask_before="Which dog did {name} have before {value}?",
        ask_when="When did {name} get the dog {value}?",
    ),
    Relation(
        phrase="drives a",
        kind="car",
        new=("[I drive|{name} drives] a {value}.", "[My|{name}'s] car is a {value}."),
        change=("[I|{name}] bought a new car, a {value}.", "[I|{name}] traded the old car for a {value}."),
        removal=("[I|{name}] sold the {value} and [take|takes] the bus.", "[I|{name}] stopped driving the {value}."),
        repeat=("As I said, [I drive|{name} drives] a {value}.", "[I|{name}] washed the {value} again."),
        ask=("Which car does {name} drive?", "What does {name} drive?"),
        ask_former="Which car did {name} drive before?",
        ask_before="Which car did {name} drive before the {value}?",
        ask_when="When did {name} buy the {value}?",
    ),
    Relation(
        phrase="plays the",
        kind="instrument",
        new=("[I play|{name} plays] the {value}.", "[I make|{name} makes] music on the {value}."),
        change=("[I|{name}] took up the {value} instead.", "[I|{name}] switched over to the {value}."),
        removal=("[I|{name}] stopped playing the {value}.", "[I|{name}] put the {value} away for good."),
        repeat=("As I said, [I play|{name} plays] the {value}.", "[I|{name}] practised the {value} all day."),
        ask=("Which instrument does {name} play?", "What does {name} play?"),
        ask_former="Which instrument did {name} play before?",
        ask_before="Which instrument did {name} play before the {value}?",
        ask_when="When did {name} take up the {value}?",
    ),
    Relation(
        phrase="studies",
        kind="language",
        new=("[I study|{name} studies] {value}.", "[I take|{name} takes] lessons in {value}."),
        change=(
            "[I|{name}] now [take|takes] a course in {value} instead.",
            "[I|{name}] began to learn {value} instead.",
        ),
        removal=("[I|{name}] dropped the course in {value}.", "[I|{name}] stopped learning {value}."),
        repeat=("As I said, [I study|{name} studies] {value}.", "[I|{name}] practised some {value} today."),
        ask=("Which language does {name} study?", "What does {name} study?"),
        ask_former="Which language did {name} study before?",
        ask_before="Which language did {name} study before {value}?",
        ask_when="When did {name} begin to study {value}?",
    ),
    Relation(
        phrase="likes to cook",
        kind="dish",
        new=("[I like|{name} likes] to cook {value}.", "[My|{name}'s] best dish is {value}."),
        change=("These days [I prefer|{name} prefers] to cook {value}.", "[My|{name}'s] new best dish is {value}."),
        removal=("[I|{name}] will never cook {value} again.", "[I|{name}] gave up cooking {value}."),
        repeat=("As I said, [I like|{name} likes] to cook {value}.", "[I|{name}] made {value} again for dinner."),
        ask=("What does {name} like to cook?", "Which dish does {name} like to cook?"),
        ask_former="What did {name} like to cook before?",
        ask_before="What did {name} like to cook before {value}?",
        ask_when="When did {name} start to cook {value}?",
    ),
    Relation(
        phrase="grows",
        kind="plant",
        new=("[I grow|{name} grows] {value} in the garden.", "[My|{name}'s] garden is full of {value}."),
        change=(
            "[I|{name}] dug up the garden and planted {value}.",
            "This year [I grow|{name} grows] {value} instead.",
        ),
        removal=("[My|{name}'s] {value} all died in the frost.", "[I|{name}] stopped growing {value}."),
        repeat=("As I said, [I grow|{name} grows] {value}.", "[I|{name}] watered the {value} this morning."),
        ask=("What does {name} grow?", "Which plants does {name} grow?"),
        ask_former="What did {name} grow before?",
        ask_before="What did {name} grow before the {value}?",
        ask_when="When did {name} plant {value}?",
    ),
    Relation(
        phrase="dreams of visiting",
        kind="country",
        new=("[I dream|{name} dreams] of visiting {value}.", "[I want|{name} wants] to travel to {value}."),
        change=("Now [I|{name}] would rather travel to {value}.", "[My|{name}'s] new dream is a trip to {value}."),
        removal=("[I|{name}] lost all wish to see {value}.", "[I|{name}] cancelled the plan to see {value}."),
        repeat=("As I said, [I dream|{name} dreams] of {value}.", "[I|{name}] read a guide to {value} again."),
        ask=("Which country does {name} dream of visiting?", "Where does {name} want to travel?"),
        ask_former="Which country did {name} dream of visiting before?",
        ask_before="Which country did {name} dream of visiting before {value}?",
        ask_when="When did {name} begin to dream of {value}?",
    ),
    Relation(
        phrase="collects",
        kind="thing",
        new=("[I collect|{name} collects] {value}.", "[My|{name}'s] shelves are full of {value}."),
        change=(
            "[I|{name}] started to collect {value} instead.",
            "Now it is {value} that [I collect|{name} collects].",
        ),
        removal=("[I|{name}] sold all the {value}.", "[I|{name}] no longer [collect|collects] {value}."),
        repeat=("As I said, [I collect|{name} collects] {value}.", "[I|{name}] dusted all the {value} again."),
        ask=("What does {name} collect?", "Which things does {name} collect?"),
        ask_former="What did {name} collect before?",
        ask_before="What did {name} collect before the {value}?",
        ask_when="When did {name} start to collect {value}?",
    ),
)

SMALL_TALK = (
    "How was your day?",
    "Nice to hear from you.",
    "The weather is lovely today.",
    "Talk to you soon.",
    "That sounds great.",
    "I am a bit tired today.",
    "Have a good evening.",
    "Tell me more about it.",
    "What a week it was.",
    "I slept well last night.",
    "You always make me laugh.",
    "Sorry for the late reply.",
    "I hope you are well.",
    "It rained all morning here.",
    "See you next week then.",
    "Thank you so much for asking.",
    "That is good to know.",
    "I will call you later.",
    "Let us meet again soon.",
    "It was so good to see you.",
)


def say(rng: random.Random, relation: Relation, kind: StatementKind, value: str, about: str = "") -> str:
    """One sentence of a kind: in the first person, or about the third person `about` ("my friend Bruno")."""
    templates: tuple[str, ...] = getattr(relation, kind)
    form = r"\2" if about else r"\1"
    sentence = _FORMS.sub(form, rng.choice(templates)).replace("{name}", about).replace("{value}", value)
    return _capitalise(sentence)


def list_templates() -> Iterator[str]:
    """All that is ever said, asked and remembered, with {name} and {value} still in it; a turn begins "{name}: "."""
    for relation in RELATIONS:
        for statement in (*relation.new, *relation.change, *relation.removal, *relation.repeat):
            own, of_friend = _FORMS.sub(r"\1", statement), _FORMS.sub(r"\2", statement)
            yield "{name}: " + _capitalise(own)
            yield "{name}: " + _capitalise(of_friend.replace("{name}", "my friend {name}"))
        yield from (*relation.ask, relation.ask_former, relation.ask_before, relation.ask_when)
        yield "{name} " + relation.phrase + " {value}"
    yield from ("{name}: " + sentence for sentence in SMALL_TALK)


def entry_text(person: str, relation: Relation, values: tuple[str, ...], since: str = "") -> str:
    """The canonical entry: "Marta lives in Rome, since May 2021, earlier Lisbon". `values` are oldest first."""
    former = "".join(f", earlier {value}" for value in reversed(values[:-1]))
    return f"{person} {relation.phrase} {values[-1]}" + (f", since {since}" if since else "") + former


def _capitalise(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
