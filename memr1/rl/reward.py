"""Rewards: numbers from pure inputs. The paper's reward is exact match (arXiv 2508.19828, §3)."""

from collections.abc import Callable, Sequence
from typing import Literal

from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import Operation
from memr1.metrics import exact_match, mem0_f1
from memr1.rl.examples import LinkedQuestion

RewardName = Literal["exact_match", "token_f1"]

ANSWER_SCORES: dict[RewardName, Callable[[str, str], float]] = {"exact_match": exact_match, "token_f1": mem0_f1}


def score_answers(reward: RewardName, predictions: Sequence[str], golds: Sequence[str]) -> float | None:
    """Mean score of the answers; None without any question, which TRL leaves out of its group."""
    if not golds:
        return None
    score = ANSWER_SCORES[reward]
    return sum(score(prediction, gold) for prediction, gold in zip(predictions, golds, strict=True)) / len(golds)


def altered_turns(operations: Sequence[Operation], entries: Sequence[MemoryEntry]) -> set[str]:
    """The source turns of every entry that the operations update or delete."""
    touched = {operation.entry_id for operation in operations if operation.kind in ("UPDATE", "DELETE")}
    return {turn_id for entry in entries if entry.id in touched for turn_id in entry.turn_ids}


def questions_at_stake(
    questions: Sequence[LinkedQuestion],
    retention: Sequence[LinkedQuestion],
    altered: set[str],
    max_retention: int,
) -> list[LinkedQuestion]:
    """The turn's own questions, and those about entries that some rollout of the group altered.

    Scoring a turn by its own questions alone teaches the Manager to overwrite its neighbours. Asking only about
    altered entries costs little: every other one answers as before in all rollouts of the group.
    """
    threatened = [question for question in retention if altered.intersection(question.evidence)]
    return [*questions, *threatened[:max_retention]]
