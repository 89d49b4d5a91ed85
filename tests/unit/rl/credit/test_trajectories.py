"""Rollouts over several turns, with a scripted policy and a scripted Answer Agent: no model is loaded."""

import json
import re
from collections.abc import Sequence

from memr1.agents.answer_agent import AnswerAgent
from memr1.agents.bank_builder import build_banks
from memr1.agents.fact_extractor import TurnExtractor
from memr1.agents.generation import ScriptedGenerator
from memr1.agents.memory_manager import MemoryManager
from memr1.bank.embedding import HashEmbedder
from memr1.bank.in_memory import InMemoryStore
from memr1.rl.credit.advantages import compare_rollouts
from memr1.rl.credit.curriculum import ask_conversation
from memr1.rl.credit.scoring import BankScorer
from memr1.rl.credit.task import TrajectoryTask
from memr1.rl.credit.trajectories import Reading, RolloutStart, Sample, bank_before, start_reread
from memr1.rl.reward import score_by_text
from memr1.training_options import CurriculumStage, LocalGlobalCredit
from tests.builders import conversation, question

LINES = [
    ("Ann", "I live in Rome."),
    ("Bob", "I drive a Fiat."),
    ("Ann", "I moved to Oslo."),
    ("Bob", "I sold the Fiat."),
    ("Ann", "Nice weather."),
    ("Bob", "I drive a Saab."),
]
TALK = conversation("c1", LINES, turns_per_session=2)
QUESTIONS = [
    question("car", "What does Bob drive first?", "Fiat", evidence=["D1:2"]),
    question("home", "Where does Ann live?", "Oslo", evidence=["D2:1"]),
    question("new car", "What does Bob drive?", "Saab", evidence=["D3:2"]),
]


def ignore(name: str, value: float) -> None:
    """A text score tells nothing."""


def operations(*items: dict[str, object]) -> str:
    return json.dumps({"operations": items})


def keep_everything(prompt: str) -> str:
    """Adds the turn; a move overwrites the first memory that is shown; small talk cannot be read."""
    turn = prompt.split("turn:\n")[1].split("\n")[0]
    if "weather" in turn:
        return "no JSON"
    if "moved" in turn:
        return operations({"op": "UPDATE", "id": 1, "text": turn})
    return operations({"op": "ADD", "text": turn})


def forget_the_move(prompt: str) -> str:
    return operations() if "moved" in prompt.split("turn:\n")[1] else keep_everything(prompt)


class Policy:
    """Scripts in turn, one per rollout in the batch; counts its calls."""

    def __init__(self, *scripts: object) -> None:
        self.scripts, self.batches = scripts, []

    def __call__(self, prompts: Sequence[str]) -> list[Sample]:
        self.batches.append(len(prompts))
        texts = [self.scripts[place % len(self.scripts)](prompt) for place, prompt in enumerate(prompts)]  # type: ignore[operator]
        return [Sample(text, [1, 2], [3] * len(text), False) for text in texts]


def say_what_stands_there(prompt: str) -> str:
    """The last word of the last memory of the person asked about."""
    shown, asked = prompt.split("question:")
    name = "Ann" if "Ann" in asked else "Bob"
    texts = [json.loads(line)["text"] for line in shown.splitlines() if line.startswith("{")]
    about = [text for text in texts if text.startswith(name)]
    return json.dumps({"memories": [], "answer": re.sub(r"\W", "", about[-1].split()[-1]) if about else "none"})


def reading() -> Reading:
    return Reading(TurnExtractor(), HashEmbedder(), "compact", entries_per_turn=5)


def task(answers: ScriptedGenerator, **fields: object) -> TrajectoryTask:
    credit = LocalGlobalCredit.model_validate(
        {
            "kind": "local_global",
            "conversations_per_step": 1,
            "num_trajectories": 2,
            "num_rereads": 2,
            "reread_probability": 1,
            "curriculum": (CurriculumStage(3, 1),),
            **fields,
        }
    )
    scorer = BankScorer(AnswerAgent(answers, "compact", 32), HashEmbedder(), 30, score_by_text("exact_match"))
    return TrajectoryTask([ask_conversation(TALK, QUESTIONS)], credit, reading(), scorer, max_retention=4, seed=7)


def test_a_trajectory_builds_the_bank_that_the_builder_would_build() -> None:
    (rollout,) = reading().roll_out([RolloutStart("g", 0, TALK)], Policy(keep_everything))
    store = InMemoryStore(HashEmbedder())
    manager = MemoryManager(ScriptedGenerator(keep_everything), "compact", 32)
    build_banks([TALK], manager, TurnExtractor(), store, entries_per_turn=5, embedder=HashEmbedder())
    built = store.bank("c1").entries()
    assert [entry.model_copy(update={"scope": "c1"}) for entry in rollout.bank.entries()] == built
    assert [decision.failure for _, decision in rollout.turns] == [None, None, None, None, "no JSON", None]
    assert rollout.bank.journal()[4].source.failure == "no JSON"


def test_outputs_that_cannot_be_read_are_data() -> None:
    talk = conversation("long", LINES * 15)  # more of them than a build would stand
    (rollout,) = reading().roll_out([RolloutStart("g", 0, talk)], Policy(lambda _: "garbage"))
    assert len(rollout.turns) == 90 and not rollout.bank.entries()


def test_rollouts_are_read_in_lockstep_and_know_nothing_of_each_other() -> None:
    policy = Policy(keep_everything, forget_the_move)
    first, second = reading().roll_out([RolloutStart("g", number, TALK) for number in range(2)], policy)
    assert policy.batches == [2] * 6
    assert [entry.text for entry in first.bank.entries("Ann")] == ["Ann: I moved to Oslo."]
    assert [entry.text for entry in second.bank.entries("Ann")] == ["Ann: I live in Rome."]


def test_the_same_policy_gives_the_same_trajectories() -> None:
    banks = [reading().roll_out([RolloutStart("g", 0, TALK)], Policy(keep_everything))[0].bank for _ in range(2)]
    assert banks[0].journal() == banks[1].journal()


def test_a_reread_starts_from_the_bank_before_its_session() -> None:
    (parent,) = reading().roll_out([RolloutStart("g", 0, TALK)], Policy(keep_everything))
    for session in range(3):
        (before,) = reading().roll_out(
            [RolloutStart("g", 0, TALK.model_copy(update={"sessions": TALK.sessions[:session]}))],
            Policy(keep_everything),
        )
        assert list(bank_before(parent, session)) == before.bank.entries()
    start = start_reread(parent, 1, "g/D2", 3)
    assert [entry.text for entry in start.entries] == ["Ann: I live in Rome.", "Bob: I drive a Fiat."]
    (reread,) = reading().roll_out([start], Policy(keep_everything))
    assert [sample.text for sample, _ in reread.turns] == [sample.text for sample, _ in parent.turns[2:4]]
    texts = [entry.text for entry in bank_before(parent, 2)]
    assert [entry.text for entry in reread.bank.entries()] == texts


def test_equal_rollouts_earn_equal_rewards_and_no_advantage() -> None:
    work = task(ScriptedGenerator(say_what_stands_there))
    plan = work.plan(0)
    rollouts = work.roll_out(plan, Policy(keep_everything))
    scored = work.score(plan, rollouts, ignore)
    assert [item.is_reread for item in scored] == [False] * 2 + [True] * 6
    assert compare_rollouts(scored, scale=True) == [0.0] * 8


def test_a_trajectory_is_scored_by_the_bank_it_ends_with_and_equal_views_are_answered_once() -> None:
    answers = ScriptedGenerator(say_what_stands_there)
    work = task(answers, reread_probability=0, num_trajectories=4)
    plan = work.plan(0)
    scored = work.score(plan, work.roll_out(plan, Policy(keep_everything, forget_the_move)), ignore)
    # Right at the end: the new car always, the home where the move was noticed; the first car stands last no more.
    assert [item.reward for item in scored] == [2 / 3, 1 / 3, 2 / 3, 1 / 3]
    assert len(answers.prompts) == 6  # three questions about two different banks
    assert [item.num_failures for item in scored] == [1] * 4
    assert scored[0].operations == {"ADD": 4, "UPDATE": 1}


def test_a_reread_is_scored_on_its_session_and_on_what_some_of_its_group_altered() -> None:
    def overwrite_the_car(prompt: str) -> str:
        turn = prompt.split("turn:\n")[1]
        return (
            operations({"op": "UPDATE", "id": 1, "text": "Bob sold it"}) if "sold" in turn else keep_everything(prompt)
        )

    work = task(ScriptedGenerator(say_what_stands_there))
    plan = work.plan(0)
    trajectories = work.roll_out(plan, Policy(keep_everything))[:2]
    session = next(reread for reread in plan[0].rereads if reread.session == 1)
    group = f"{trajectories[0].start.group}/D2"
    starts = [start_reread(trajectories[session.parent], 1, group, number) for number in range(2)]
    careful, careless = reading().roll_out(starts, Policy(lambda _: operations(), overwrite_the_car))
    scored = work.score(plan, [careful, careless], ignore)
    # Asked: the home (its own), and the first car, because the careless one altered that entry.
    assert [item.reward for item in scored] == [0.5, 0.5]
    alone = work.score(plan, [careful], ignore)
    assert [item.reward for item in alone] == [0.0]


def test_ranks_share_the_rollouts_and_every_reread_lies_with_its_parent() -> None:
    work = task(ScriptedGenerator(say_what_stands_there), num_trajectories=3)
    plan = work.plan(0)
    whole = {item.start.scope for item in work.roll_out(plan, Policy(keep_everything))}
    parts = [{item.start.scope for item in work.roll_out(plan, Policy(keep_everything), rank, 2)} for rank in range(2)]
    assert parts[0] | parts[1] == whole and not parts[0] & parts[1]
    idle = Policy(keep_everything)
    assert work.roll_out(plan, idle, rank=3, num_ranks=4) == [] and idle.batches == []
