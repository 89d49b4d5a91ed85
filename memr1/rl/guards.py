"""Stops a training that has gone wrong, by name, before it spoils its last good checkpoint.

    length       before the first step: a prompt that leaves no room for a completion in the model's context (with
                 credit.kind = "local_global" at the step that meets it: prompts hold what the policy wrote)
    memory       before the first step: a micro-batch that memory cannot hold (memr1.rl.preflight)
    sampler      a sampler that works with other weights than the trainer (memr1.rl.canary)
    numbers      a reward, loss, gradient norm or divergence that is no finite number
    divergence   a KL divergence from the starting policy above `max_kl`
    parsing      hardly any completion can be read, `patience` steps in a row
    collapse     every rollout of a prompt is the same completion, `patience` steps in a row, the reward being no better
                 than at the start

A step is judged before it is saved, so what is resumed from is always the last checkpoint before the fault.
"""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from memr1.errors import TrainingError
from memr1.training_options import GuardConfig

CONSTANT_ENTROPY = 1e-3  # nats per token
NUM_CANDIDATES = 16  # prompts of most characters: the one of most tokens is among them


class StepJudge:
    """Looks at one line of metrics after the other; one without a reward is of an optimiser step on former rollouts."""

    def __init__(self, limits: GuardConfig) -> None:
        self._limits = limits
        self._first_reward: float | None = None
        self._unread = self._constant = 0  # steps in a row

    def find_fault(self, step: Mapping[str, float]) -> str | None:
        """What is wrong with the run after this step, and what to do; None while all is well."""
        # DeepSpeed leaves a step with such a gradient out, says that its norm is infinite, and goes on.
        broken = [name for name in ("loss", "gradient_norm", "kl") if not math.isfinite(step.get(name, 0.0))]
        if broken:
            return f"{', '.join(broken)} not a number: lower the learning rate"
        limits = self._limits
        if step.get("kl", 0.0) > limits.max_kl:
            return (
                f"the policy is {step['kl']:.3g} nats per token from where it started (training.guards.max_kl = "
                f"{limits.max_kl:g}): lower learning_rate or raise kl_coefficient"
            )
        return self._find_fault_of_rollouts(step) if "reward" in step else None

    def _find_fault_of_rollouts(self, step: Mapping[str, float]) -> str | None:
        limits = self._limits
        self._unread = self._unread + 1 if step.get("parse_failures", 0.0) > limits.max_parse_failures else 0
        if self._unread >= limits.patience:
            return (
                f"{step['parse_failures']:.0%} of the completions cannot be read, {self._unread} steps in a row: "
                "choose the prompt form that the model knows, or raise max_new_tokens"
            )
        if self._first_reward is None and not math.isnan(step["reward"]):  # nan: nothing could be asked in this step
            self._first_reward = step["reward"]
        self._constant = self._constant + 1 if self._is_constant(step) else 0
        if self._constant >= limits.patience:
            return (
                f"every rollout of a prompt is the same completion, {self._constant} steps in a row, and the reward "
                f"({step['reward']:.3g}) is no better than at the start: raise kl_coefficient or the temperature"
            )
        return None

    def _is_constant(self, step: Mapping[str, float]) -> bool:
        same = step.get("zero_variance_groups", 0.0) >= 1.0 and step.get("entropy", 1.0) < CONSTANT_ENTROPY
        return same and self._first_reward is not None and step["reward"] <= self._first_reward


class Guards(TrainerCallback):
    """Asks a StepJudge at every step, on every rank: all see the same averages, so all stop together."""

    def __init__(self, limits: GuardConfig, read: Callable[[dict[str, float]], Mapping[str, float]]) -> None:
        """`read` turns the trainer's log into a line of metrics."""
        self._judge = StepJudge(limits)
        self._read = read

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Raises TrainingError."""
        fault = self._judge.find_fault(self._read(logs)) if logs and "loss" in logs else None
        if fault is not None:
            raise TrainingError(f"training stopped at step {state.global_step}: {fault}. The last checkpoint is kept.")


def check_lengths(
    examples: Sequence[Mapping[str, str]], count_tokens: Callable[[str], int], max_new_tokens: int, room: int | None
) -> None:
    """Raises TrainingError for the longest prompt, if it and a completion do not fit into the model's context."""
    candidates = heapq.nlargest(NUM_CANDIDATES, examples, key=lambda example: len(example["prompt"]))
    lengths = {example["id"]: count_tokens(example["prompt"]) for example in candidates}
    longest = max(lengths, key=lambda example: lengths[example], default=None)
    if longest is not None:
        check_room(lengths[longest], max_new_tokens, room, longest)


def check_room(length: int, max_new_tokens: int, room: int | None, example: str) -> None:
    """Raises TrainingError when a prompt of `length` tokens and a completion do not fit into the model's context."""
    if room is not None and length + max_new_tokens > room:
        raise TrainingError(
            f"example {example}: a prompt of {length} tokens and {max_new_tokens} new ones do not fit into the "
            f"model's {room}: lower retrieval.entries_per_turn or entries_per_speaker, or max_new_tokens"
        )


def refuse_nan(reward: Any) -> Any:
    """The reward function, except that a score that is not a number is an error: TRL would take it for no score."""

    def scored(completions: Sequence[Any], example_id: Sequence[str], **columns: Any) -> list[float | None]:
        scores: list[float | None] = reward(completions, example_id=example_id, **columns)
        for key, score in zip(example_id, scores, strict=True):
            if score is not None and not math.isfinite(score):
                raise TrainingError(f"the reward of a completion for example {key} is not a number: {score}")
        return scores

    scored.__name__ = reward.__name__
    return scored
