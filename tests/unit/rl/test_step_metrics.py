"""What of TRL's log line becomes a line of metrics.jsonl."""

import math

from memr1.rl.guards import StepJudge
from memr1.rl.trainer import step_metrics
from memr1.training_options import GuardConfig


def test_extra_rewards_and_a_judges_counts_have_columns_of_their_own() -> None:
    logs = {"reward": 1.25, "reward/answers": 1.0, "reward/format": 0.5, "judge/asked": 3.0, "operations/ADD": 0.75}
    assert step_metrics(logs | {"rewards/answers/mean": 1.25}) == logs


def test_a_step_in_which_nothing_could_be_asked_is_no_fault() -> None:
    logs = {"reward": None, "frac_reward_zero_std": 0.0, "loss": 0.0, "reward/format": None, "operations/ADD": 0.5}
    step = step_metrics(logs)  # type: ignore[arg-type]  # TRL logs None for a mean of nothing
    assert math.isnan(step.pop("reward"))
    assert step == {"zero_variance_groups": 0.0, "loss": 0.0, "operations/ADD": 0.5}
    assert StepJudge(GuardConfig()).find_fault({**step, "reward": math.nan}) is None
