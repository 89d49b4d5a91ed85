"""One system read, asked and scored: with scripted models, on conversations small enough to count by hand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from memr1.agents.answer_agent import AnswerAgent
from memr1.agents.fact_extractor import FactExtractor, TurnExtractor
from memr1.agents.generation import ScriptedGenerator
from memr1.agents.memory_manager import ManagerDecision, ManagerPolicy, ManagerRequest, MemoryManager
from memr1.agents.pair import PairSettings, pair_settings
from memr1.bank.embedding import HashEmbedder
from memr1.config import RunConfig
from memr1.data.conversation import Dataset
from memr1.errors import AgentError, EvaluationError
from memr1.evaluation.baselines import AlwaysAddManager
from memr1.evaluation.evaluate import evaluate_system, read_answers
from memr1.evaluation.scores import SystemScore
from tests.builders import NOON, conversation, dataset, question

ROME, OSLO = (("Ann", "I live in Rome."), ("Bob", "I drive a Fiat.")), (("Ann", "I live in Oslo."), ("Bob", "Oh."))


@dataclass(frozen=True)
class Pair:
    manager: ManagerPolicy
    answer_agent: AnswerAgent
    extractor: FactExtractor
    settings: PairSettings


class SecondTurnFails(AlwaysAddManager):
    """Adds every fact, but prints something unreadable at the second turn of a conversation."""

    def decide(self, requests: Sequence[ManagerRequest]) -> list[ManagerDecision]:
        garbled = ManagerDecision(operations=(), failure="hm", reason="not JSON")
        added = super().decide(requests)
        return [garbled if item.turn_id.endswith(":2") else done for item, done in zip(requests, added, strict=True)]


class Interrupted(Exception):
    """The machine went away."""


def answer_from_memories(prompt: str) -> str:
    """Answers Rome or Oslo, whichever its memories mention, and names the first memory."""
    town = "Rome" if "Rome" in prompt else "Oslo" if "Oslo" in prompt else ""
    chosen = [{"text": "", "id": 1}] if town else []
    return json.dumps({"memories": chosen, "answer": town})


@pytest.fixture
def pair() -> Pair:
    return Pair(
        manager=AlwaysAddManager(),
        answer_agent=AnswerAgent(ScriptedGenerator(answer_from_memories), "compact", 64),
        extractor=TurnExtractor(),
        settings=pair_settings(RunConfig()),
    )


@pytest.fixture
def two_towns() -> Dataset:
    return dataset(
        [conversation("c1", ROME), conversation("c2", OSLO), conversation("unasked", ROME)],
        [
            question("q1", conversation_id="c1", answer="Rome", category=1),
            question("q2", conversation_id="c2", answer="Oslo", category=1),
            question("q3", conversation_id="c2", answer="a Fiat", category=2, evidence=("D1:1", "D1:2")),
            question("q4", conversation_id="unasked"),
        ],
    )


def run(pair: Pair, data: Dataset, folder: Path, ids: Sequence[str] = ("c1", "c2")) -> SystemScore:
    return evaluate_system("trained", pair, data, ids, HashEmbedder(), folder)


def test_a_system_is_scored_on_the_named_conversations_only(pair: Pair, two_towns: Dataset, tmp_path: Path) -> None:
    score = run(pair, two_towns, tmp_path)
    assert (score.num_questions, score.exact_match) == (3, pytest.approx(2 / 3, abs=1e-6))
    assert score.by_category["1"].exact_match == 1.0
    assert score.by_category["2"].exact_match == 0.0
    assert score.evidence_recall == 1.0  # every turn was added, and banks of two entries are shown whole
    assert score.build.operations == {"ADD": 4, "UPDATE": 0, "DELETE": 0, "NOOP": 0}
    assert (score.build.num_turns, score.build.num_entries) == (4, 4)


def test_every_answer_is_kept_with_the_memories_it_rests_on(pair: Pair, two_towns: Dataset, tmp_path: Path) -> None:
    run(pair, two_towns, tmp_path)
    answers = read_answers(tmp_path / "answers.jsonl")
    assert [answer.question_id for answer in answers] == ["q1", "q2", "q3"]
    assert answers[0].memories == ("Ann: I live in Rome.",)
    assert answers[0].num_retrieved == 2


def test_questions_never_see_another_conversations_bank(pair: Pair, two_towns: Dataset, tmp_path: Path) -> None:
    seen = ScriptedGenerator(answer_from_memories)
    run(replace(pair, answer_agent=AnswerAgent(seen, "compact", 64)), two_towns, tmp_path)
    assert all(("Rome" in prompt) != ("Oslo" in prompt) for prompt in seen.prompts)


def test_evidence_that_the_manager_did_not_keep_is_told_apart(pair: Pair, two_towns: Dataset, tmp_path: Path) -> None:
    score = run(replace(pair, manager=SecondTurnFails()), two_towns, tmp_path)
    assert score.evidence_kept == pytest.approx((1 + 1 + 0.5) / 3, abs=1e-6)  # D1:2 never reached the bank
    assert score.evidence_recall == score.evidence_kept
    assert score.build.num_manager_failures == 2
    assert score.build.num_entries == 2


def test_an_answer_that_does_not_parse_is_empty_counted_and_kept(
    pair: Pair, two_towns: Dataset, tmp_path: Path
) -> None:
    script = ['{"memories":[],"answer":"Rome"}', "I would rather not say", '{"memories":[],"answer":"a Fiat"}']
    score = run(replace(pair, answer_agent=AnswerAgent(ScriptedGenerator(script), "compact", 64)), two_towns, tmp_path)
    assert (score.num_answer_failures, score.exact_match) == (1, pytest.approx(2 / 3, abs=1e-6))
    failed = read_answers(tmp_path / "answers.jsonl")[1]
    assert (failed.answer, failed.failure) == ("", "I would rather not say")


def test_a_killed_evaluation_reads_and_asks_only_what_is_left(
    pair: Pair, two_towns: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memr1.evaluation.evaluate.QUESTIONS_AT_ONCE", 1)

    def answer_one(prompt: str) -> str:
        if "Oslo" in prompt:
            raise Interrupted
        return answer_from_memories(prompt)

    with pytest.raises(Interrupted):
        run(replace(pair, answer_agent=AnswerAgent(ScriptedGenerator(answer_one), "compact", 64)), two_towns, tmp_path)
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"system": "trained", "question_id": "q2"')  # a line that the kill cut off
    asked = ScriptedGenerator(answer_from_memories)
    undecided = MemoryManager(ScriptedGenerator([]), "compact", 64)  # would fail at the first turn it has to read
    again = replace(pair, manager=undecided, answer_agent=AnswerAgent(asked, "compact", 64))
    assert run(again, two_towns, tmp_path).exact_match == pytest.approx(2 / 3, abs=1e-6)
    assert len(asked.prompts) == 2
    assert [answer.question_id for answer in read_answers(tmp_path / "answers.jsonl")] == ["q1", "q2", "q3"]


def test_a_model_that_never_prints_an_answer_is_an_error(pair: Pair, tmp_path: Path) -> None:
    many = dataset([conversation("c1")], [question(f"q{number}") for number in range(50)])
    garbage = replace(pair, answer_agent=AnswerAgent(ScriptedGenerator(lambda _: "zzz"), "compact", 64))
    with pytest.raises(EvaluationError, match=r"none of the 50 outputs.*'zzz'"):
        run(garbage, many, tmp_path, ["c1"])
    assert not (tmp_path / "score.json").exists()


def test_a_manager_that_never_prints_an_operation_is_an_error(pair: Pair, tmp_path: Path) -> None:
    lines = [("Ann", f"I like number {number}.") for number in range(60)]
    many = dataset([conversation("c1", lines)], [question("q1")])
    garbage = MemoryManager(ScriptedGenerator(lambda _: "zzz"), "compact", 64)
    with pytest.raises(AgentError, match="zzz"):
        run(replace(pair, manager=garbage), many, tmp_path, ["c1"])


def test_progress_is_reported_by_phase(pair: Pair, two_towns: Dataset, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    evaluate_system(
        "trained", pair, two_towns, ["c1", "c2"], HashEmbedder(), tmp_path, on_step=lambda *step: steps.append(step)
    )
    assert ("reading", 4, 4) in steps
    assert steps[-1] == ("answering", 3, 3)


def test_only_locomo_gets_locomos_score(pair: Pair, two_towns: Dataset, tmp_path: Path) -> None:
    assert run(pair, two_towns, tmp_path / "a").locomo_f1 is None
    score = run(pair, two_towns.model_copy(update={"name": "locomo"}), tmp_path / "b")
    assert score.locomo_f1 is not None
    assert score.by_category["1"].locomo_f1 == 1.0


def test_nothing_to_ask_is_an_error_before_anything_is_built(pair: Pair, two_towns: Dataset, tmp_path: Path) -> None:
    silent = two_towns.model_copy(update={"questions": ()})
    with pytest.raises(EvaluationError, match="nothing to score"):
        run(pair, silent, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_conversation_that_is_not_there_is_named(pair: Pair, two_towns: Dataset, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="'c9'"):
        run(pair, two_towns, tmp_path, ["c9"])


def test_the_baseline_adds_every_fact_and_nothing_else() -> None:
    facts = ("I live in Rome", "I like it")
    request = ManagerRequest(scope="c1", speaker="Ann", time=NOON, turn_id="D1:1", facts=facts, memories=())
    decision = AlwaysAddManager().decide([request])[0]
    assert [(item.kind, item.text) for item in decision.operations] == [("ADD", facts[0]), ("ADD", facts[1])]
