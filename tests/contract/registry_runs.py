"""Run directories up to stage 4 with a report made to measure: what the registry starts from."""

import json
from pathlib import Path

from memr1.config import RunConfig
from memr1.data.stored import write_dataset
from memr1.evaluation.comparison import EvaluationReport, ServedVersion, compare_systems
from memr1.evaluation.report import describe_dataset, write_report
from memr1.evaluation.scores import BuildFigures, ScoredAnswer, score_answer, score_system
from memr1.records import write_json
from memr1.run_dir import RunDir
from tests.builders import conversation, dataset, question

NUM_CONVERSATIONS, NUM_QUESTIONS = 8, 40
NOTICE = "The data is CC BY-NC 4.0: non-commercial use only."
ADD = json.dumps({"operations": [{"op": "ADD", "text": "Ann lives in Rome"}]})


def scripted(answer: str) -> RunConfig:
    """Agents of one sentence each: they need no weights."""
    reply = json.dumps({"memories": [{"text": "", "id": 1}], "answer": answer})
    return RunConfig.model_validate(
        {
            "memory_manager": {"generator": {"kind": "scripted", "reply": ADD}},
            "answer_agent": {"generator": {"kind": "scripted", "reply": reply}},
        }
    )


def answers_of(system: str, num_right: int) -> list[ScoredAnswer]:
    """The first `num_right` questions answered right, the others wrong; dealt to the conversations in turn."""
    return [
        score_answer(
            system,
            question(f"q{number}", conversation_id=f"c{number % NUM_CONVERSATIONS}"),
            "Rome" if number < num_right else "Oslo",
            memories=(),
            num_retrieved=0,
            retrieved_turns=(),
            kept_turns=(),
        )
        for number in range(NUM_QUESTIONS)
    ]


def make_run(
    folder: Path,
    *,
    trained: int = 30,
    warm_start: int = 10,
    champion: tuple[str, int] | None = None,
    says: str = "Rome",
) -> RunDir:
    """A run whose systems answered this many of the 40 questions right; `champion` is a version and its number."""
    run = RunDir(folder)
    config = scripted(says)
    write_json(run.config, config.model_dump(mode="json"))
    ids = [f"c{number}" for number in range(NUM_CONVERSATIONS)]
    questions = [question(f"q{n}", conversation_id=f"c{n % NUM_CONVERSATIONS}") for n in range(NUM_QUESTIONS)]
    data = dataset([conversation(key) for key in ids], questions, splits={"test": ids}, licence_notice=NOTICE)
    write_dataset(run, data)
    answers = {"warm_start": answers_of("warm_start", warm_start), "trained": answers_of("trained", trained)}
    if champion is not None:
        answers["champion"] = answers_of("champion", champion[1])
    build = BuildFigures(num_turns=16, num_manager_calls=16, num_manager_failures=0, operations={}, num_entries=16)
    report = EvaluationReport(
        dataset=describe_dataset(data, ids, "test"),
        systems={key: score_system(items, build, 1.0) for key, items in answers.items()},
        differences=tuple(compare_systems(answers, seed=1)),
        champion=ServedVersion(model_name="memr1", version=champion[0]) if champion else None,
    )
    write_report(run.evaluation, report, answers)
    return run
