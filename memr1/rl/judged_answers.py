"""The reward "judge": from a judge's verdicts to scores, and what a judge that is away means for a training."""

from collections.abc import Sequence

from memr1.agents.generators import build_generator
from memr1.agents.judge import AnsweredQuestion, Judge
from memr1.cache_file import CacheFile
from memr1.environment import verdict_cache
from memr1.errors import GenerationFailed, TrainingError
from memr1.rl.reward import LogMetric, ScoreAnswers, score_by_text
from memr1.training_options import TrainingOptions


def build_score(training: TrainingOptions) -> ScoreAnswers:
    """How answers are scored in this training. Raises ConfigError for a judge without an address."""
    if training.judge is None:
        return score_by_text(training.reward)
    return JudgeScore(Judge(build_generator(training.judge, None), CacheFile(verdict_cache(), "verdicts")))


class JudgeScore:
    """1 for a right answer, 0 for a wrong one, None for one on which the judge gave no readable verdict.

    A judge that cannot make up its mind on one answer is no reason to end a training of hours, and a guess would be a
    wrong lesson: such an answer teaches nobody.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def __call__(self, answers: Sequence[AnsweredQuestion], log_metric: LogMetric) -> list[float | None]:
        """Raises TrainingError when the judge is away."""
        try:
            judgement = self._judge.judge(answers)
        except GenerationFailed as error:
            raise TrainingError(
                f"no verdict, no reward: {error} The last checkpoint and every verdict are kept: run the same command "
                "again once the judge answers."
            ) from error
        log_metric("judge/asked", judgement.num_asked)
        log_metric("judge/unreadable", judgement.num_unreadable)
        return [None if verdict is None else float(verdict) for verdict in judgement.verdicts]
