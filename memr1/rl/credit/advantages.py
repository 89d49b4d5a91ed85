"""From the rewards of rollouts to what the loss needs of each row. Pure.

A row is one turn of one rollout. Its advantage is its rollout's, compared within the rollout's group. Lengths are
normalised: every rollout weighs the same in the loss, a trajectory of thirty turns as much as a reread of three, and
inside a rollout every turn weighs the same, and inside a turn every token.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OFFSET = 1e-4  # TRL's, added to a group's deviation


@dataclass(frozen=True)
class ScoredRollout:
    """What all ranks must know about a rollout."""

    group: str
    is_reread: bool
    reward: float | None  # None: nothing could be asked
    num_turns: int
    num_tokens: int = 0  # of the completions of all turns
    num_cut_off: int = 0
    num_failures: int = 0  # turns whose output could not be read
    operations: Mapping[str, int] = field(default_factory=dict)


def compare_rollouts(rollouts: Sequence[ScoredRollout], *, scale: bool) -> list[float]:
    """(reward − mean) / (deviation + 1e-4) within each group, undivided without `scale`. Not scored: 0."""
    groups = _rewards_by_group(rollouts)
    return [0.0 if item.reward is None else _compare(item.reward, groups[item.group], scale=scale) for item in rollouts]


def weigh_turns(num_turns: Sequence[int]) -> list[float]:
    """The weight of one turn of each rollout: all rollouts weigh the same, and the mean over all turns is 1."""
    num_rollouts = sum(1 for count in num_turns if count)
    return [sum(num_turns) / (num_rollouts * count) if count else 0.0 for count in num_turns]


def pad_rows(num_rows: Sequence[int], num_passes: int) -> int:
    """Rows of every rank: as many as the longest has, and a multiple of the forward and backward passes."""
    return max(1, -(-max(num_rows) // num_passes)) * num_passes


def step_figures(rollouts: Sequence[ScoredRollout]) -> dict[str, float]:
    """A step's figures over all ranks, by the names of TRL's log."""
    trajectories = [item.reward for item in rollouts if not item.is_reread and item.reward is not None]
    rereads = [item.reward for item in rollouts if item.is_reread and item.reward is not None]
    groups = list(_rewards_by_group(rollouts).values())
    num_turns = max(1, sum(item.num_turns for item in rollouts))
    operations = sum((Counter(item.operations) for item in rollouts), Counter())
    shares = {f"operations/{kind}": operations[kind] / num_turns for kind in ("ADD", "UPDATE", "DELETE", "NOOP")}
    return {
        "reward": statistics.fmean(trajectories) if trajectories else math.nan,
        "reward_std": _deviation(trajectories),
        **({"local_reward": statistics.fmean(rereads)} if rereads else {}),
        "frac_reward_zero_std": sum(len(set(rewards)) < 2 for rewards in groups) / max(1, len(groups)),
        "turns": num_turns,
        "completions/mean_length": sum(item.num_tokens for item in rollouts) / num_turns,
        "completions/clipped_ratio": sum(item.num_cut_off for item in rollouts) / num_turns,
        "parse_failures": sum(item.num_failures for item in rollouts) / num_turns,
        **shares,
    }


def _compare(reward: float, rewards: Sequence[float], *, scale: bool) -> float:
    if len(set(rewards)) < 2:
        return 0.0
    difference = reward - statistics.fmean(rewards)
    return difference / (_deviation(rewards) + OFFSET) if scale else difference


def _deviation(rewards: Sequence[float]) -> float:
    return statistics.stdev(rewards) if len(rewards) > 1 else 0.0


def _rewards_by_group(rollouts: Sequence[ScoredRollout]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for item in rollouts:
        if item.reward is not None:
            groups.setdefault(item.group, []).append(item.reward)
    return groups
