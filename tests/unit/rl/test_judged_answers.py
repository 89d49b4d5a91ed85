"""A judge's verdicts as scores, and what its absence does to a training."""

from pathlib import Path

import pytest

from memr1.agents.generation import ScriptedGenerator
from memr1.agents.judge import AnsweredQuestion, Judge
from memr1.errors import ConfigError, GenerationFailed, TrainingError
from memr1.model_options import EndpointModel
from memr1.rl.judged_answers import JudgeScore, build_score
from memr1.training_options import GrpoTraining
from tests.endpoint_server import Handler, completion, serving


def answers(*predictions: str) -> list[AnsweredQuestion]:
    return [AnsweredQuestion(question="Where?", gold="Rome", prediction=text) for text in predictions]


def test_right_is_one_wrong_is_zero_and_no_verdict_is_no_score() -> None:
    def verdict(prompt: str) -> str:
        return "RIGHT" if "Roma" in prompt else "WRONG" if "Paris" in prompt else "Hm."

    logged: dict[str, float] = {}
    score = JudgeScore(Judge(ScriptedGenerator(verdict)))
    assert score(answers("Roma", "Paris", "odd", "rome", ""), logged.__setitem__) == [1.0, 0.0, None, 1.0, 0.0]
    assert logged == {"judge/asked": 3, "judge/unreadable": 1}


def test_a_judge_that_is_away_stops_the_training_and_says_how_to_go_on() -> None:
    def away(prompt: str) -> str:
        raise GenerationFailed("no backend.")

    score = JudgeScore(Judge(ScriptedGenerator(away)))
    with pytest.raises(TrainingError, match=r"no backend\. The last checkpoint and every verdict are kept"):
        score(answers("Roma"), lambda name, value: None)


def test_the_configuration_chooses_the_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = GrpoTraining(reward="judge", judge=EndpointModel(kind="endpoint", model="m"))
    monkeypatch.delenv("MEMR1_ENDPOINT_URL", raising=False)
    with pytest.raises(ConfigError, match=r"\$MEMR1_ENDPOINT_URL"):
        build_score(judged)

    def right(handler: Handler, prompt: str, attempt: int) -> bool:
        handler.reply(200, completion("RIGHT"))
        return True

    monkeypatch.setenv("MEMR1_HOME", str(tmp_path))
    with serving(right) as server:
        monkeypatch.setenv("MEMR1_ENDPOINT_URL", server.url)
        assert build_score(judged)(answers("Roma"), lambda name, value: None) == [1.0]
    assert (tmp_path / "cache" / "verdicts.sqlite").exists()
    assert build_score(GrpoTraining())(answers("Roma"), lambda name, value: None) == [0.0]
