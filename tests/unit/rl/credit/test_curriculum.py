"""What a step reads follows from the seed and the step number alone."""

from memr1.rl.credit.curriculum import (
    AskedConversation,
    ask_conversation,
    conversations_at,
    count_most_turns,
    plan_step,
    sessions_at,
)
from memr1.training_options import CurriculumStage, LocalGlobalCredit
from tests.builders import conversation, question

STAGES = (CurriculumStage(2, 3), CurriculumStage(4, 2))


def asked(identity: str = "c1") -> AskedConversation:
    """Four sessions of two turns; questions answerable from sessions 0, 0, 2 and 3."""
    lines = [("Ann", f"line {number}") for number in range(8)]
    return ask_conversation(
        conversation(identity, lines, turns_per_session=2),
        [
            question("early", evidence=["D1:1"]),
            question("too", evidence=["D1:2"]),
            question("joint", evidence=["D1:1", "D3:2"]),
            question("late", evidence=["D4:1"]),
            question("nowhere", evidence=[]),
        ],
    )


def options(**fields: object) -> LocalGlobalCredit:
    return LocalGlobalCredit.model_validate(
        {"kind": "local_global", "conversations_per_step": 2, "num_trajectories": 3, "curriculum": STAGES, **fields}
    )


def test_a_question_belongs_to_the_session_of_its_last_evidence() -> None:
    item = asked()
    assert [[found.id for found in session] for session in item.questions] == [
        ["early", "too"],
        [],
        ["joint"],
        ["late"],
    ]
    assert [found.id for found in item.answerable(3)] == ["early", "too", "joint"]


def test_a_stage_lasts_its_steps_and_the_last_one_stays() -> None:
    assert [sessions_at(STAGES, step) for step in range(7)] == [2, 2, 2, 4, 4, 4, 4]


def test_every_conversation_is_read_before_one_is_read_again() -> None:
    items = [asked(name) for name in "abcde"]
    read = [item.conversation.id for step in range(5) for item in conversations_at(items, 2, step, seed=7)]
    assert sorted(read[:5]) == sorted(read[5:]) == list("abcde")
    assert read[:5] != read[5:]


def test_a_step_is_planned_alike_by_everybody_and_unlike_any_other() -> None:
    items = [asked(name) for name in "abcde"]
    assert plan_step(items, options(), 1, seed=7) == plan_step(items, options(), 1, seed=7)
    assert plan_step(items, options(), 1, seed=7) != plan_step(items, options(), 1, seed=8)
    assert plan_step(items, options(), 1, seed=7) != plan_step(items, options(), 2, seed=7)


def test_sessions_with_questions_are_reread_and_their_parents_take_turns() -> None:
    plan = plan_step([asked("a"), asked("b")], options(reread_probability=1), 3, seed=7)
    for reading in plan:
        assert reading.num_sessions == 4
        assert [reread.session for reread in reading.rereads] == [0, 2, 3]
        assert [[found.id for found in reread.retention] for reread in reading.rereads] == [
            [], ["early", "too"], ["early", "too", "joint"],
        ]  # fmt: skip
    parents = [reread.parent for reading in plan for reread in reading.rereads]
    assert [(parent - parents[0]) % 3 for parent in parents] == [0, 1, 2, 0, 1, 2]


def test_without_rereads_only_trajectories_are_left() -> None:
    plan = plan_step([asked()], options(reread_probability=0), 0, seed=7)
    assert all(not reading.rereads and reading.num_sessions == 2 for reading in plan)


def test_a_group_is_asked_at_most_so_many_questions_in_their_order() -> None:
    plan = plan_step([asked()], options(max_questions=2), 4, seed=7)
    names = [found.id for found in plan[0].questions]
    assert len(names) == 2
    assert names == sorted(names, key=["early", "too", "joint", "late"].index)


def test_conversations_about_which_nothing_can_be_asked_yet_are_left_out() -> None:
    late = ask_conversation(asked("late").conversation, [question(evidence=["D4:1"])])
    assert {item.conversation.id for item in plan_step([late, asked("a")], options(), 0, seed=1)} == {"a"}
    assert {item.conversation.id for item in plan_step([late, asked("a")], options(), 4, seed=1)} == {"a", "late"}


def test_the_most_turns_of_a_step_are_those_of_its_longest_conversations() -> None:
    short = ask_conversation(conversation("short"), [question()])
    assert count_most_turns([asked(), short], options(num_rereads=2)) == (8 + 2) * (3 + 2)
    assert count_most_turns([asked(), short], options(conversations_per_step=1, reread_probability=0)) == 8 * 3
