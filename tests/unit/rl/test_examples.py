from datetime import datetime

from memr1.bank.bank import record_operations
from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.data.conversation import Question
from memr1.rl.examples import (
    LinkedQuestion,
    ManagerExample,
    bank_at,
    banks_before_turns,
    choose_manager_examples,
    link_questions,
    retention_questions,
)

NOON = datetime(2024, 5, 1, 12)


def source(turn_id: str) -> Source:
    return Source(turn_id=turn_id, speaker="Ann", time=NOON, policy="test")


def journal_of(*turns: tuple[str, list[Operation]]) -> list[JournalRecord]:
    entries: list[MemoryEntry] = []
    journal: list[JournalRecord] = []
    for turn_id, operations in turns:
        entries, records = record_operations(entries, operations, source(turn_id), scope="c", sequence=len(journal) + 1)
        journal += records
    return journal


def question(identity: str, *evidence: str) -> Question:
    return Question(id=identity, conversation_id="c", text=f"{identity}?", answer="x", category=1, evidence=evidence)


def linked(identity: str, *evidence: str) -> LinkedQuestion:
    return LinkedQuestion(id=identity, text=f"{identity}?", answer="x", evidence=evidence)


def example(identity: str, *, questions: int, retention: int) -> ManagerExample:
    return ManagerExample(
        id=identity,
        prompt="p",
        scope="c",
        source=source(identity),
        bank_sequence=0,
        turn_words=1,
        words_read=1,
        shown=(),
        questions=tuple(linked(f"{identity}q{number}", identity) for number in range(questions)),
        retention=tuple(linked(f"{identity}r{number}", "t0") for number in range(retention)),
    )


def test_a_question_is_linked_to_the_last_turn_it_rests_on() -> None:
    links = link_questions([question("now", "t3"), question("former", "t1", "t3"), question("unknown")])
    assert {turn: [item.id for item in items] for turn, items in links.items()} == {"t3": ["now", "former"]}


def test_the_bank_before_a_turn_is_the_fold_of_the_journal_up_to_it() -> None:
    journal = journal_of(
        ("t1", [Operation(kind="ADD", text="Ann lives in Rome"), Operation(kind="ADD", text="Ann bakes")]),
        ("t2", []),
        ("t3", [Operation(kind="UPDATE", entry_id="1", text="Ann lives in Oslo")]),
    )
    before = banks_before_turns(journal)
    assert before == {"t1": 0, "t2": 2, "t3": 3}
    assert bank_at(journal, "c", before["t1"]) == []
    assert [entry.text for entry in bank_at(journal, "c", before["t3"])] == ["Ann lives in Rome", "Ann bakes"]


def test_retention_asks_only_about_earlier_questions_whose_evidence_is_shown() -> None:
    journal = journal_of(
        ("t1", [Operation(kind="ADD", text="Ann lives in Rome")]), ("t2", [Operation(kind="ADD", text="Ann bakes")])
    )
    shown = bank_at(journal, "c", 2)[:1]
    links = link_questions([question("home", "t1"), question("job", "t2"), question("later", "t1", "t9")])
    assert [item.id for item in retention_questions(links, {"t1", "t2"}, shown)] == ["home"]


def test_turns_without_questions_are_a_quarter_of_those_with_and_never_those_without_any_reward() -> None:
    with_questions = [example(f"a{number}", questions=1, retention=0) for number in range(20)]
    without = [example(f"b{number}", questions=0, retention=1) for number in range(50)]
    empty = [example(f"e{number}", questions=0, retention=0) for number in range(50)]
    chosen = choose_manager_examples(with_questions + without + empty, limit=100, seed=1)
    kinds = [item.id[0] for item in chosen]
    assert (kinds.count("a"), kinds.count("b"), kinds.count("e")) == (20, 5, 0)
    assert chosen == choose_manager_examples(with_questions + without + empty, limit=100, seed=1)
