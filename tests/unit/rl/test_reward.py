from datetime import datetime

from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import Operation
from memr1.rl.examples import LinkedQuestion
from memr1.rl.reward import altered_turns, questions_at_stake, score_answers


def entry(identity: str, *turn_ids: str) -> MemoryEntry:
    time = datetime(2024, 5, 1)
    return MemoryEntry(id=identity, scope="c", speaker="Ann", text="x", time=time, turn_ids=turn_ids)


def linked(identity: str, *evidence: str) -> LinkedQuestion:
    return LinkedQuestion(id=identity, text="?", answer="x", evidence=evidence)


def test_exact_match_counts_equal_answers() -> None:
    assert score_answers("exact_match", ["Rome", "a baker"], ["rome ", "baker"]) == 0.5


def test_token_f1_gives_part_of_the_reward_for_part_of_the_answer() -> None:
    # precision 1/2, recall 1/1 → 2·(1/2)/(3/2) = 2/3
    assert score_answers("token_f1", ["a baker"], ["baker"]) == 2 / 3


def test_without_questions_there_is_no_reward_rather_than_a_zero() -> None:
    assert score_answers("exact_match", [], []) is None


def test_only_updated_and_deleted_entries_count_as_altered() -> None:
    entries = [entry("1", "t1"), entry("2", "t2", "t4"), entry("3", "t3")]
    operations = [
        Operation(kind="ADD", text="new"),
        Operation(kind="UPDATE", entry_id="2", text="y"),
        Operation(kind="NOOP"),
    ]
    assert altered_turns(operations, entries) == {"t2", "t4"}


def test_the_turns_own_questions_come_with_those_about_altered_entries_up_to_the_limit() -> None:
    own = [linked("own", "t9")]
    others = [linked("a", "t2"), linked("b", "t3"), linked("c", "t2"), linked("d", "t2")]
    at_stake = questions_at_stake(own, others, altered={"t2"}, max_retention=2)
    assert [item.id for item in at_stake] == ["own", "a", "c"]
