"""Rewards: numbers from pure inputs. The paper's reward is exact match (arXiv 2508.19828, §3).

An answer's score is what an agent is trained for; extra rewards (`training.extra_rewards`) are added to it, weighted.
"""

from collections.abc import Callable, Mapping, Sequence

from memr1.agents.judge import AnsweredQuestion
from memr1.bank.entry import MemoryEntry
from memr1.bank.operation import Operation
from memr1.metrics import exact_match, mem0_f1
from memr1.rl.examples import LinkedQuestion
from memr1.training_options import ExtraRewards, RewardName

LogMetric = Callable[[str, float], None]
ScoreAnswers = Callable[[Sequence[AnsweredQuestion], LogMetric], list[float | None]]

TEXT_SCORES: dict[RewardName, Callable[[str, str], float]] = {"exact_match": exact_match, "token_f1": mem0_f1}
FREE_SHARE = 0.7  # of what was read: a bank may hold so many words for nothing (Memory-R2)


def score_by_text(reward: RewardName) -> ScoreAnswers:
    """A score that compares each answer with its gold answer."""
    compare = TEXT_SCORES[reward]

    def score(answers: Sequence[AnsweredQuestion], log_metric: LogMetric) -> list[float | None]:
        return [compare(answer.prediction, answer.gold) for answer in answers]

    return score


def mean_score(scores: Sequence[float | None]) -> float | None:
    """None without any score, which TRL leaves out of its group, and None where one is missing: a mean over other
    questions than those of the rest of the group would compare what cannot be compared."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def add_extra_rewards(answers: float | None, extras: Mapping[str, float | None], weights: ExtraRewards) -> float | None:
    """The answers' score plus each extra reward times its weight (one that is None counts as 0).

    None when the answers have no score: what cannot be asked about teaches nobody, neither form nor size.
    """
    if answers is None:
        return None
    weight: dict[str, float] = dict(weights)
    return answers + sum(weight[name] * (extra or 0.0) for name, extra in extras.items())


def score_memory_size(words_before: int, words_after: int, words_read: int, turn_words: int) -> float:
    """How far one turn's operations took the bank over its budget, from 0 (within it) to -1.

    Memory-R2 (arXiv 2605.21768) charges a finished bank max(0, mem - 0.7 session) / session, in tokens. Here one turn
    is credited, so: `session` is all that was read up to and including the turn (`words_read`), the charge is by how
    much the operations raised max(0, bank - 0.7 words_read) (a bank that was too large before costs nobody, and nobody
    is paid for shrinking it), the unit is the turn's own words instead of the session's (the charge must not fade
    as a conversation grows), and it ends at 1, a whole turn too much. Words stand for tokens: a ratio of both.
    """
    budget = FREE_SHARE * words_read
    added = max(0.0, words_after - budget) - max(0.0, words_before - budget)
    return -min(1.0, max(0.0, added) / max(1, turn_words))


def score_evidence_kept(questions: Sequence[LinkedQuestion], entries: Sequence[MemoryEntry]) -> float | None:
    """Share of the questions' evidence turns that some entry rests on; None without evidence.

    1 minus it is Memory-R2's M-Fail. A rightful DELETE loses evidence too: keep the weight well below 1.
    """
    evidence = {turn_id for question in questions for turn_id in question.evidence}
    held = {turn_id for entry in entries for turn_id in entry.turn_ids}
    return len(evidence & held) / len(evidence) if evidence else None


def count_words(entries: Sequence[MemoryEntry]) -> int:
    """Words of all entries."""
    return sum(len(entry.text.split()) for entry in entries)


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
