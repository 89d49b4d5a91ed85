from collections.abc import Sequence
from datetime import datetime

import pytest

from memr1.agents.judge import AnsweredQuestion
from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import Operation
from memr1.rl.examples import LinkedQuestion
from memr1.rl.reward import (
    add_extra_rewards,
    altered_turns,
    count_words,
    mean_score,
    questions_at_stake,
    score_by_text,
    score_evidence_kept,
    score_memory_size,
)
from memr1.training_options import ExtraRewards


def entry(identity: str, *turn_ids: str) -> MemoryEntry:
    time = datetime(2024, 5, 1)
    return MemoryEntry(id=identity, scope="c", speaker="Ann", text="x", time=time, turn_ids=turn_ids)


def linked(identity: str, *evidence: str) -> LinkedQuestion:
    return LinkedQuestion(id=identity, text="?", answer="x", evidence=evidence)


def answered(*predictions_and_golds: tuple[str, str]) -> list[AnsweredQuestion]:
    return [AnsweredQuestion(question="?", gold=gold, prediction=text) for text, gold in predictions_and_golds]


def ignore(name: str, value: float) -> None:
    """A text score logs nothing."""


def test_exact_match_scores_equal_answers() -> None:
    scores = score_by_text("exact_match")(answered(("Rome", "rome "), ("a baker", "baker")), ignore)
    assert scores == [1.0, 0.0]


def test_token_f1_gives_part_of_the_reward_for_part_of_the_answer() -> None:
    # precision 1/2, recall 1/1 → 2·(1/2)/(3/2) = 2/3
    assert score_by_text("token_f1")(answered(("a baker", "baker")), ignore) == [2 / 3]


def test_the_reward_is_the_mean_score_and_none_where_a_score_is_missing() -> None:
    assert mean_score([1.0, 0.0, 0.5]) == 0.5
    assert mean_score([]) is None
    assert mean_score([1.0, None]) is None


def test_extra_rewards_are_added_by_weight_and_never_to_an_answer_that_has_no_score() -> None:
    weights = ExtraRewards(format=0.1, memory_size=0.3, evidence_kept=0.5)
    extras = {"format": 1.0, "memory_size": -0.5, "evidence_kept": 0.25}
    assert add_extra_rewards(1.0, extras, weights) == pytest.approx(1.0 + 0.1 - 0.15 + 0.125)
    assert add_extra_rewards(0.5, {"format": 1.0, "evidence_kept": None}, weights) == pytest.approx(0.6)
    assert add_extra_rewards(0.5, {}, weights) == 0.5
    assert add_extra_rewards(None, extras, weights) is None


@pytest.mark.parametrize(
    ("before", "after", "read", "turn", "score"),
    [
        (10, 30, 100, 20, 0.0),  # 30 words fit into the budget of 70
        (60, 75, 100, 20, -0.25),  # 5 words above 70, a quarter of the turn's 20
        (80, 85, 100, 20, -0.25),  # above it already: only the 5 new words count
        (90, 80, 100, 20, 0.0),  # nobody is paid for making it smaller
        (80, 80, 100, 20, 0.0),  # nor charged for what others wrote
        (70, 170, 100, 20, -1.0),  # five turns too much end at 1
        (0, 1, 0, 0, -1.0),  # a turn without words
    ],
)
def test_a_turn_pays_for_the_words_that_it_takes_the_bank_over_its_budget(
    before: int, after: int, read: int, turn: int, score: float
) -> None:
    assert score_memory_size(before, after, read, turn) == pytest.approx(score)


@pytest.mark.parametrize(
    ("evidence", "held", "score"),
    [
        ([("t1",), ("t2", "t3")], [("t1",), ("t3", "t9")], 2 / 3),
        ([("t1",), ("t1", "t2")], [("t1", "t2")], 1.0),  # a turn counts once, however many questions rest on it
        ([("t1",)], [], 0.0),
        ([()], [("t1",)], None),
        ([], [("t1",)], None),
    ],
)
def test_kept_evidence_is_the_share_of_turns_that_an_entry_rests_on(
    evidence: Sequence[Sequence[str]], held: Sequence[Sequence[str]], score: float | None
) -> None:
    questions = [linked(str(number), *turns) for number, turns in enumerate(evidence)]
    entries = [entry(str(number), *turns) for number, turns in enumerate(held)]
    assert score_evidence_kept(questions, entries) == score


def test_words_of_entries_are_what_spaces_separate() -> None:
    entries = [entry("1"), entry("2").model_copy(update={"text": " Ann lives  in Rome. "})]
    assert count_words(entries) == 5


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
