"""Stage 1's material: what is said or asked over a bank, and a completion that knows the form but decides badly.

Biased on purpose, so that reinforcement has something to learn: the restated `about` and `seen` are always right, the
decision after them is right in the share of `BIAS`. Where a decision is wrong, what is shown in its place differs from
every other decision's completion: else the agents would not learn to tell the two apart (docs/experiments.md).
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from memr1.agents.prompting import AnswerPromptForm, render_answer_prompt, render_manager_prompt
from memr1.data.conversation import OperationKind
from memr1.data.synthetic import Level, World
from memr1.data.synthetic_relations import RELATIONS, SMALL_TALK, StatementKind, entry_text, say
from memr1.records import Record
from memr1.tiny.demonstrated_banks import (
    Deck,
    Known,
    Shown,
    Telling,
    Words,
    draw_facts,
    draw_tellings,
    memory_entries,
    show_entries,
)
from memr1.tiny.forms import (
    YEARS,
    answer_completion,
    ask_about,
    ask_who,
    direct_completion,
    list_dates,
    manager_completion,
    nothing_found_completion,
    small_talk_completion,
)

Decision = Literal[
    "new", "change", "removal", "repeat", "small_talk",
    "current", "former", "when", "which", "stale", "missing", "direct",
]  # fmt: skip
MANAGER_KINDS: tuple[StatementKind | Literal["small_talk"], ...] = ("new", "change", "removal", "repeat", "small_talk")
SHOWN_PER_TURN = 6
SHOWN_PER_SPEAKER = {"easy": 8, "full": 12}
DIRECT_SHARE = 0.12  # of the questions are to be answered without distillation


class Bias(Record):
    """How often a demonstration decides rightly, by decision."""

    update_on_change: float = 0.42  # else ADD, which leaves the stale entry beside the new one
    delete_on_removal: float = 0.42  # else ADD of what it says; NOOP would teach to take a removal for a repeat
    noop_on_repeat: float = 0.95  # else ADD of what it says
    right_of_two: float = 0.25  # the later of two entries of a fact is current, the earlier one former; else swapped
    notice_former: float = 0.5  # else both values; the current one alone would teach to ignore what was asked


# The full world's changes and dated entries can be told from the easy one's, so it has a bias of its own. Its facts
# change up to three times: a Manager that adds what it should update leaves banks in which no single right decision
# changes an answer, and reinforcement finds nothing. Removals are said alike in both worlds: no bias of their own.
BIAS: dict[Level, Bias] = {
    "easy": Bias(),
    "full": Bias(update_on_change=0.8, right_of_two=0.4, notice_former=0.8),
}
UNBIASED = Bias(update_on_change=1.0, delete_on_removal=1.0, noop_on_repeat=1.0, right_of_two=1.0, notice_former=1.0)


class QuestionMix(Record):
    """Which questions are shown, in shares; the rest asks for a value of any fact."""

    missing: float = 0.22  # of all: nobody knows
    changed: float = 0.38  # of all: about a fact that changed
    which: float = 0.5  # of the others, where two people can be compared
    when: float = 0.2  # of the others, where there is a date


class Branch(NamedTuple):
    """What follows a bank: the rest of the prompt, and its completion."""

    decision: Decision
    prompt: str
    completion: str
    form: AnswerPromptForm = "compact"  # of a question's prompt


class Demonstration(NamedTuple):
    """A bank as its prompt begins, and several turns or questions over it."""

    bank: str
    branches: list[Branch]


class Teacher(NamedTuple):
    """What every demonstration of a kind is drawn from."""

    rng: random.Random
    words: Words
    world: World
    bias: Bias = Bias()
    mix: QuestionMix = QuestionMix()


def demonstrate_manager(teacher: Teacher, max_facts: int, num_branches: int) -> Demonstration:
    """One speaker's entries (up to six) and several turns of that speaker."""
    rng, world = teacher.rng, teacher.world
    deck = Deck(rng, teacher.words, easy=world.easy_words)
    (tellings,) = draw_tellings(rng, deck, world, 1)
    facts = draw_facts(rng, deck, world, tellings, max_facts)
    shown = show_entries(rng, [facts], SHOWN_PER_TURN)
    branches = [_manager_branch(teacher, deck, tellings, shown) for _ in range(num_branches)]
    entries = memory_entries(shown)
    return _split_prompts(
        branches, lambda branch: render_manager_prompt("compact", entries, [branch.prompt]), "turn:\n"
    )


def demonstrate_answers(teacher: Teacher, max_facts: int, num_branches: int) -> Demonstration:
    """Two speakers' entries and several questions about anybody in them."""
    rng, world = teacher.rng, teacher.world
    deck = Deck(rng, teacher.words, easy=world.easy_words)
    groups = draw_tellings(rng, deck, world, 2)
    facts = [draw_facts(rng, deck, world, tellings, max_facts) for tellings in groups]
    shown = show_entries(rng, facts, SHOWN_PER_SPEAKER["easy" if world.easy_words else "full"])
    people = [teller.person for tellings in groups for teller in tellings]
    branches = [_answer_branch(teacher, people, shown) for _ in range(num_branches)]
    branches = [_answer_at_once(branch) if rng.random() < DIRECT_SHARE else branch for branch in branches]
    entries = memory_entries(shown)
    return _split_prompts(
        branches,
        lambda branch: render_answer_prompt(branch.form, entries, branch.prompt),
        "question:\n",
    )


def _manager_branch(teacher: Teacher, deck: Deck, tellings: Sequence[Telling], shown: Sequence[Shown]) -> Branch:
    kind = teacher.rng.choices(MANAGER_KINDS, weights=(25, 32, 17, 17, 9))[0]
    if kind == "small_talk":
        turn = f"{tellings[0].speaker}: {teacher.rng.choice(SMALL_TALK)}"
        return Branch(kind, turn, small_talk_completion())
    if kind == "new" or not shown:
        return _new_fact(teacher, deck, teacher.rng.choice(tellings), shown)
    return _known_fact(teacher, deck, kind, teacher.rng.choice(shown))


def _new_fact(teacher: Teacher, deck: Deck, teller: Telling, shown: Sequence[Shown]) -> Branch:
    rng = teacher.rng
    known = {item.fact.relation.phrase for item in shown if item.fact.teller == teller}
    relation = rng.choice([relation for relation in RELATIONS if relation.phrase not in known])
    value = deck.peek(relation.kind)
    # A change of a fact that the bank does not show is a new fact to it.
    step: StatementKind = "new" if rng.random() < 0.8 else "change"
    since = _draw_since(teacher) if step == "change" else ""
    text = entry_text(teller.person, relation, (value,), since)
    completion = manager_completion(ask_about(teller.person, relation), "ADD", text)
    return Branch("new", _turn(teller, say(rng, relation, step, value, teller.mention), since), completion)


def _known_fact(teacher: Teacher, deck: Deck, kind: Literal["change", "removal", "repeat"], item: Shown) -> Branch:
    rng, bias = teacher.rng, teacher.bias
    (person, _), relation = item.fact.teller, item.fact.relation
    operation: OperationKind = "ADD"
    value, since = item.values[-1], ""
    if kind == "change":
        value = deck.peek(relation.kind)
        since = _draw_since(teacher)
    text = entry_text(person, relation, (value,), since)
    if kind == "change" and rng.random() < bias.update_on_change:
        operation, text = "UPDATE", entry_text(person, relation, (*item.values, value), since)
    elif kind == "removal" and rng.random() < bias.delete_on_removal:
        operation, text = "DELETE", ""
    elif kind == "repeat" and rng.random() < bias.noop_on_repeat:
        operation, text = "NOOP", ""
    completion = manager_completion(ask_about(person, relation), operation, text, seen=item.seen, number=item.number)
    teller = item.fact.teller
    return Branch(kind, _turn(teller, say(rng, relation, kind, value, teller.mention), since), completion)


def _turn(teller: Telling, sentence: str, since: str) -> str:
    return f"{teller.speaker}: " + (f"Since {since}: " if since else "") + sentence


def _draw_since(teacher: Teacher) -> str:
    return teacher.rng.choice(list_dates(*YEARS)) if teacher.world.dated_changes else ""


def _answer_branch(teacher: Teacher, people: Sequence[str], shown: Sequence[Shown]) -> Branch:
    rng, mix = teacher.rng, teacher.mix
    share = rng.random()
    if share < mix.missing or not shown:
        return _ask_missing(rng, people, shown)
    changed = [item for item in shown if len(item.fact.values) > 1]
    item = rng.choice(changed) if share < mix.missing + mix.changed and changed else rng.choice(shown)
    rivals = _rivals(item.fact, shown)
    if teacher.world.people_per_conversation > 2:
        kind = rng.random()
        if kind < mix.which and rivals:
            return _ask_which(rng, people, item, rivals)
        if kind < mix.which + mix.when and item.fact.since:
            return _ask_when(rng, item.fact, shown)
    return _ask_value(teacher, item.fact, shown)


def _ask_value(teacher: Teacher, fact: Known, shown: Sequence[Shown]) -> Branch:
    rng, bias, relation = teacher.rng, teacher.bias, fact.relation
    former = len(fact.values) > 1 and rng.random() < 0.55
    once = relation.ask_former if len(fact.values) == 2 else relation.ask_before
    question = (once if former else rng.choice(relation.ask)).format(name=fact.teller.person, value=fact.values[-1])
    about = ask_about(fact.teller.person, relation, "earlier" if former else "")
    candidates = _entries_of(fact, shown)
    is_right = rng.random() < bias.right_of_two
    chosen = candidates[-1 if is_right != former else 0]
    answer = chosen.values[-1]
    if former and len(candidates) == 1 and chosen.former:
        answer = chosen.former if rng.random() < bias.notice_former else f"{answer}, earlier {chosen.former}"
    kind: Decision = "stale" if len(candidates) > 1 else "former" if former else "current"
    return Branch(kind, question, answer_completion(about, _named([chosen]), answer))


def _ask_when(rng: random.Random, fact: Known, shown: Sequence[Shown]) -> Branch:
    """Always answered rightly: the entry that names the month names the value that is asked for, too."""
    newest = next((item for item in _entries_of(fact, shown) if item.values[-1] == fact.values[-1]), None)
    if newest is None:
        return _ask_missing(rng, [fact.teller.person], shown)
    question = fact.relation.ask_when.format(name=fact.teller.person, value=fact.values[-1])
    about = ask_about(fact.teller.person, fact.relation, "since")
    return Branch("when", question, answer_completion(about, _named([newest]), fact.since))


def _ask_which(rng: random.Random, people: Sequence[str], item: Shown, rivals: Sequence[Shown]) -> Branch:
    """Always answered rightly: who is named first is looked up first, the other one only if that is not it.

    Now and then nothing is known of the other person in this relation, as after a removal.
    """
    person, relation, value = item.fact.teller.person, item.fact.relation, item.values[-1]
    known = {rival.fact.teller.person: rival for rival in rivals}
    unknown = [name for name in people if name not in known and name != person]
    pair = [person, rng.choice(unknown if unknown and rng.random() < 0.15 else list(known))]
    rng.shuffle(pair)
    found = {**known, person: item}
    looked_up = [found[name] for name in pair[: pair.index(person) + 1] if name in found]
    question = f"Who {relation.phrase} {value}, {pair[0]} or {pair[1]}?"
    return Branch("which", question, answer_completion(ask_who(relation, value), _named(looked_up), person))


def _ask_missing(rng: random.Random, people: Sequence[str], shown: Sequence[Shown]) -> Branch:
    """About a person who is there and something that nobody, or only somebody else, is known for."""
    person = rng.choice(people)
    known = {item.fact.relation.phrase for item in shown if item.fact.teller.person == person}
    unknown = [relation for relation in RELATIONS if relation.phrase not in known]
    others = [r for r in unknown if any(item.fact.relation.phrase == r.phrase for item in shown)]
    relation = rng.choice(others if others and rng.random() < 0.7 else unknown)
    completion = nothing_found_completion(ask_about(person, relation))
    return Branch("missing", rng.choice(relation.ask).format(name=person), completion)


def _answer_at_once(branch: Branch) -> Branch:
    """The same question and answer, without distillation."""
    told = json.loads(branch.completion)
    completion = direct_completion(told["about"], told["answer"])
    return Branch("direct", branch.prompt, completion, "compact_direct")


def _named(memories: Sequence[Shown]) -> list[tuple[str, int]]:
    return [(memory.text, memory.number) for memory in memories]


def _entries_of(fact: Known, shown: Sequence[Shown]) -> list[Shown]:
    return [item for item in shown if item.fact is fact]


def _rivals(fact: Known, shown: Sequence[Shown]) -> list[Shown]:
    """What is known in this relation of other people."""
    return [item for item in shown if item.fact.relation == fact.relation and item.fact.teller != fact.teller]


def _split_prompts(branches: Sequence[Branch], render: Callable[[Branch], str], heading: str) -> Demonstration:
    """Cut every rendered prompt where its bank ends, so that all of them can share it."""
    bank, cut = "", []
    for branch in branches:
        bank, _, rest = render(branch).partition(heading)
        cut.append(branch._replace(prompt=heading + rest))
    return Demonstration(bank, cut)
