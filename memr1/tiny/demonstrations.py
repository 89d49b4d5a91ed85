"""Stage 1's material: banks, what is said or asked over them, and a completion that knows the form but decides badly.

Biased on purpose, so that reinforcement has something to learn: the restated `about` and `seen` are always right, the
decision after them is right in the share of `BIAS`. Entries are shown in any order; of a stale and a new entry of
the same fact the stale one stands first in most cases, as retrieval ranks them.
"""

import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from memr1.agents.prompting import render_answer_prompt, render_manager_prompt
from memr1.bank.entry import MemoryEntry
from memr1.data.conversation import OperationKind, SplitName
from memr1.data.synthetic_relations import RELATIONS, SMALL_TALK, Relation, StatementKind, entry_text, say
from memr1.data.synthetic_words import list_words
from memr1.records import Record
from memr1.tiny.forms import (
    answer_completion,
    ask_about,
    manager_completion,
    nothing_found_completion,
    small_talk_completion,
)
from memr1.tiny.invented import invent_word

Decision = Literal["new", "change", "removal", "repeat", "small_talk", "current", "former", "stale", "missing"]
MANAGER_KINDS: tuple[StatementKind | Literal["small_talk"], ...] = ("new", "change", "removal", "repeat", "small_talk")
CAPITALISED = ("name", "city", "dog", "car", "language", "country")


class Bias(Record):
    """How often a demonstration decides rightly, by decision."""

    update_on_change: float = 0.47  # else ADD, which leaves the stale entry beside the new one
    delete_on_removal: float = 0.42  # else ADD of what it says; NOOP would teach to take a removal for a repeat
    noop_on_repeat: float = 0.95  # else ADD of what it says
    right_of_two: float = 0.25  # the later of two entries of a fact is current, the earlier one former; else swapped
    notice_former: float = 0.55  # else both values; the current one alone would teach to ignore what was asked


UNBIASED = Bias(update_on_change=1.0, delete_on_removal=1.0, noop_on_repeat=1.0, right_of_two=1.0, notice_former=1.0)


class Words(Record):
    """Where names and values come from: a split of the world, or invented."""

    split: SplitName = "train"
    invented_names: float = 0.7
    invented_values: float = 0.5

    def draw(self, rng: random.Random, kind: str) -> str:
        """A name (kind "name") or a value of a kind."""
        if rng.random() < (self.invented_names if kind == "name" else self.invented_values):
            return invent_word(rng, capital=kind in CAPITALISED)
        return rng.choice(list_words(kind, self.split, easy=True))


class Branch(NamedTuple):
    """What follows a bank: the rest of the prompt, and its completion."""

    decision: Decision
    prompt: str
    completion: str


class Demonstration(NamedTuple):
    """A bank as its prompt begins, and several turns or questions over it."""

    bank: str
    branches: list[Branch]


class Known(NamedTuple):
    """A fact of a demonstration's bank. `stale`: its former value stands in an entry of its own."""

    person: str
    relation: Relation
    value: str
    former: str = ""
    stale: bool = False


class Shown(NamedTuple):
    """An entry in the prompt: number, text, the fact behind it, and the value that it gives as current."""

    number: int
    text: str
    fact: Known
    value: str
    former: str


def demonstrate_manager(
    rng: random.Random, words: Words, bias: Bias, max_facts: int, num_branches: int
) -> Demonstration:
    """One speaker's entries (up to six) and several turns of that speaker."""
    person = words.draw(rng, "name")
    facts = _draw_facts(rng, words, person, max_facts)
    shown = _show([_shuffle_entries(rng, facts)[:6]])
    branches = [_manager_branch(rng, words, bias, person, facts, shown) for _ in range(num_branches)]
    return _split_prompts(branches, lambda text: render_manager_prompt("compact", _entries(shown), [text]), "turn:\n")


def demonstrate_answers(
    rng: random.Random, words: Words, bias: Bias, max_facts: int, num_branches: int
) -> Demonstration:
    """Two speakers' entries (up to eight each) and several questions about either."""
    people = [words.draw(rng, "name")]
    while (name := words.draw(rng, "name")) in people:
        continue
    people.append(name)
    facts = [_draw_facts(rng, words, person, max_facts) for person in people]
    shown = _show([_shuffle_entries(rng, own)[:8] for own in facts])
    branches = [_answer_branch(rng, words, bias, people, shown) for _ in range(num_branches)]
    return _split_prompts(branches, lambda text: render_answer_prompt("compact", _entries(shown), text), "question:\n")


def _draw_facts(rng: random.Random, words: Words, person: str, max_facts: int) -> list[Known]:
    """Up to `max_facts` facts of distinct relations; none at all in one bank of twelve."""
    count = 0 if rng.random() < 1 / 12 else rng.randint(max(1, max_facts - 3), max_facts)
    facts = []
    for relation in rng.sample(RELATIONS, count):
        share = rng.random()
        former = words.draw(rng, relation.kind) if share < 0.45 else ""
        facts.append(Known(person, relation, words.draw(rng, relation.kind), former, stale=share < 0.12))
    return facts


def _shuffle_entries(rng: random.Random, facts: Sequence[Known]) -> list[tuple[str, Known, str, str]]:
    """(text, fact, value, former value) of every entry, in any order: a stale one first in seven cases of ten."""
    placed: list[tuple[float, tuple[str, Known, str, str]]] = []
    for fact in facts:
        places = [rng.random(), rng.random()]
        if fact.stale:
            places.sort(reverse=rng.random() < 0.3)
            text = entry_text(fact.person, fact.relation, (fact.former,))
            placed.append((places[0], (text, fact, fact.former, "")))
        values = (fact.former, fact.value) if fact.former and not fact.stale else (fact.value,)
        text = entry_text(fact.person, fact.relation, values)
        placed.append((places[1], (text, fact, fact.value, values[0] if len(values) == 2 else "")))
    return [entry for _, entry in sorted(placed, key=lambda pair: pair[0])]


def _show(groups: Sequence[Sequence[tuple[str, Known, str, str]]]) -> list[Shown]:
    entries = [entry for group in groups for entry in group]
    return [Shown(number, *entry) for number, entry in enumerate(entries, 1)]


def _entries(shown: Sequence[Shown]) -> list[MemoryEntry]:
    time = datetime(2023, 1, 1)  # the compact form shows no time
    return [
        MemoryEntry(id=str(item.number), scope="", speaker=item.fact.person, text=item.text, time=time)
        for item in shown
    ]


def _manager_branch(
    rng: random.Random, words: Words, bias: Bias, person: str, facts: Sequence[Known], shown: Sequence[Shown]
) -> Branch:
    kind = rng.choices(MANAGER_KINDS, weights=(26, 32, 18, 14, 10))[0]
    if kind == "small_talk":
        return Branch(kind, f"{person}: {rng.choice(SMALL_TALK)}", small_talk_completion())
    if kind == "new" or not shown:
        return _new_fact(rng, words, person, shown)
    return _known_fact(rng, words, bias, kind, rng.choice(shown))


def _new_fact(rng: random.Random, words: Words, person: str, shown: Sequence[Shown]) -> Branch:
    known = {item.fact.relation.phrase for item in shown}
    relation = rng.choice([relation for relation in RELATIONS if relation.phrase not in known])
    value = words.draw(rng, relation.kind)
    # A change of a fact that the bank does not show is a new fact to it.
    step: StatementKind = "new" if rng.random() < 0.8 else "change"
    text = entry_text(person, relation, (value,))
    completion = manager_completion(ask_about(person, relation), "ADD", text)
    return Branch("new", f"{person}: {say(rng, relation, step, value)}", completion)


def _known_fact(
    rng: random.Random, words: Words, bias: Bias, kind: Literal["change", "removal", "repeat"], item: Shown
) -> Branch:
    person, relation = item.fact.person, item.fact.relation
    operation: OperationKind = "ADD"
    seen = item.text.removeprefix(f"{person} {relation.phrase} ")
    value = words.draw(rng, relation.kind) if kind == "change" else item.value
    text = entry_text(person, relation, (value,))
    if kind == "change" and rng.random() < bias.update_on_change:
        operation, text = "UPDATE", entry_text(person, relation, (seen, value))
    elif kind == "removal" and rng.random() < bias.delete_on_removal:
        operation, text = "DELETE", ""
    elif kind == "repeat" and rng.random() < bias.noop_on_repeat:
        operation, text = "NOOP", ""
    completion = manager_completion(ask_about(person, relation), operation, text, seen=seen, number=item.number)
    return Branch(kind, f"{person}: {say(rng, relation, kind, value)}", completion)


def _answer_branch(
    rng: random.Random, words: Words, bias: Bias, people: Sequence[str], shown: Sequence[Shown]
) -> Branch:
    changed = [item for item in shown if item.fact.former]
    share = rng.random()
    if share < 0.25 or not shown:
        return _ask_missing(rng, people, shown)
    item = rng.choice(changed) if share < 0.6 and changed else rng.choice(shown)
    person, relation = item.fact.person, item.fact.relation
    former = bool(item.fact.former) and rng.random() < 0.55
    question = relation.ask_former if former else rng.choice(relation.ask)
    about = ask_about(person, relation, former=former)
    candidates = [other for other in shown if other.fact is item.fact]
    is_right = rng.random() < bias.right_of_two
    chosen = candidates[-1 if is_right != former else 0]
    answer = chosen.value
    if former and chosen.former:
        answer = chosen.former if rng.random() < bias.notice_former else f"{chosen.value}, earlier {chosen.former}"
    kind: Decision = "stale" if len(candidates) > 1 else "former" if former else "current"
    return Branch(kind, question.format(name=person), answer_completion(about, chosen.text, chosen.number, answer))


def _ask_missing(rng: random.Random, people: Sequence[str], shown: Sequence[Shown]) -> Branch:
    """About a person who is there and something that nobody, or only the other one, is known for."""
    person = rng.choice(people)
    known = {item.fact.relation.phrase for item in shown if item.fact.person == person}
    unknown = [relation for relation in RELATIONS if relation.phrase not in known]
    others = [r for r in unknown if any(item.fact.relation.phrase == r.phrase for item in shown)]
    relation = rng.choice(others if others and rng.random() < 0.7 else unknown)
    completion = nothing_found_completion(ask_about(person, relation))
    return Branch("missing", rng.choice(relation.ask).format(name=person), completion)


def _split_prompts(branches: Sequence[Branch], render: Callable[[str], str], heading: str) -> Demonstration:
    """Cut every rendered prompt where its bank ends, so that all of them can share it."""
    bank, cut = "", []
    for branch in branches:
        bank, _, rest = render(branch.prompt).partition(heading)
        cut.append(branch._replace(prompt=heading + rest))
    return Demonstration(bank, cut)
