"""One policy for both roles: the examples of both in one set, each completion scored by the reward of its role.

A step takes from both in proportion to their numbers. Ids carry the role in front: `answer_agent/<example id>`.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from memr1.config import AgentName
from memr1.rl.reward import LogMetric
from memr1.rl.rollout import AnswerReward, Completion, ManagerReward

Row = dict[str, str]
Reward = ManagerReward | AnswerReward
Task = tuple[Sequence[Row], Sequence[Row], Reward]  # training examples, validation examples, the reward that knows both


def share_tasks(tasks: Mapping[AgentName, Task]) -> tuple[list[Row], list[Row], "SharedReward"]:
    """The rows of all roles, and the reward that knows them apart."""
    train = [_of_role(role, row) for role, (rows, _, _) in tasks.items() for row in rows]
    validation = [_of_role(role, row) for role, (_, rows, _) in tasks.items() for row in rows]
    return train, validation, SharedReward({role: reward for role, (_, _, reward) in tasks.items()})


class SharedReward:
    """Reward of a policy that plays several roles."""

    __name__ = "answers"

    def __init__(self, rewards: Mapping[AgentName, Reward]) -> None:
        self._rewards = rewards

    def __call__(
        self, completions: Sequence[Completion], example_id: Sequence[str], log_metric: LogMetric, **_: object
    ) -> list[float | None]:
        """One reward per completion. Metrics are told per role; `parse_failures` for the whole step too."""
        scores: list[float | None] = [None] * len(completions)
        for role, reward in self._rewards.items():
            rows = [row for row, key in enumerate(example_id) if key.startswith(f"{role}/")]
            if not rows:
                continue
            log = partial(_log_of_role, log_metric, role, len(rows))
            found = reward(
                [completions[row] for row in rows], [example_id[row].removeprefix(f"{role}/") for row in rows], log
            )
            for row, score in zip(rows, found, strict=True):
                scores[row] = score
                if score is not None:
                    log_metric(f"{role}/reward", score)
        return scores


def _log_of_role(log_metric: LogMetric, role: AgentName, num_completions: int, name: str, value: float) -> None:
    """A role's share of a step differs from rank to rank: a value counts as often as it has completions behind it
    (that of a single completion, `reward/…`, once)."""
    names = [f"{role}/{name}", name] if name == "parse_failures" else [f"{role}/{name}"]
    for told in names if name.startswith("reward/") else names * num_completions:
        log_metric(told, value)


def _of_role(role: AgentName, row: Row) -> Row:
    return {**row, "id": f"{role}/{row['id']}"}
