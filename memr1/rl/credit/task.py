"""A run's conversations, questions and frozen Answer Agent as a task: what to read at a step, and what it is worth."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from memr1.agents.answer_agent import AnswerAgent
from memr1.agents.fact_extractor import build_extractor
from memr1.bank.embedding import Embedder
from memr1.config import RunConfig
from memr1.data.stored import read_dataset
from memr1.errors import ConfigError, TrainingError
from memr1.rl.credit.advantages import ScoredRollout
from memr1.rl.credit.curriculum import AskedConversation, PlannedReading, PlannedReread, ask_conversation, plan_step
from memr1.rl.credit.scoring import BankScorer
from memr1.rl.credit.trajectories import (
    Reading,
    Rollout,
    RolloutStart,
    SamplePrompts,
    altered_before,
    first_sessions,
    start_reread,
)
from memr1.rl.examples import LinkedQuestion
from memr1.rl.judged_answers import build_score
from memr1.rl.prepare import questions_of, training_conversations
from memr1.rl.reward import LogMetric, questions_at_stake
from memr1.run_dir import RunDir
from memr1.training_options import LocalGlobalCredit


@dataclass(frozen=True)
class TrajectoryTask:
    """Everything of a training by trajectories that is not the policy."""

    asked: Sequence[AskedConversation]
    credit: LocalGlobalCredit
    reading: Reading
    scorer: BankScorer
    max_retention: int
    seed: int

    def plan(self, step: int) -> list[PlannedReading]:
        """What all ranks together read at a step (counted from 0)."""
        return plan_step(self.asked, self.credit, step, self.seed)

    def roll_out(
        self, plan: Sequence[PlannedReading], sample: SamplePrompts, rank: int = 0, num_ranks: int = 1
    ) -> list[Rollout]:
        """This rank's trajectories, and the rereads of sessions whose parent trajectory is one of them."""
        starts = [
            RolloutStart(_group(reading), number, first_sessions(reading.conversation, reading.num_sessions))
            for reading in plan
            for number in range(self.credit.num_trajectories)
            if (reading.place * self.credit.num_trajectories + number) % num_ranks == rank
        ]
        trajectories = self.reading.roll_out(starts, sample)
        by_scope = {item.start.scope: item for item in trajectories}
        rereads = [
            start_reread(by_scope[parent], reread.session, _group(reading, reread), number)
            for reading in plan
            for reread in reading.rereads
            if (parent := f"{_group(reading)}#{reread.parent}") in by_scope
            for number in range(self.credit.num_rereads)
        ]
        return trajectories + self.reading.roll_out(rereads, sample)

    def score(
        self, plan: Sequence[PlannedReading], rollouts: Sequence[Rollout], log_metric: LogMetric
    ) -> list[ScoredRollout]:
        """Rewards of these rollouts, in order; a rollout's whole reread group must be among them.

        Raises TrainingError for a reward that is not a number.
        """
        rereads = {_group(reading, reread): reread for reading in plan for reread in reading.rereads}
        asked = {_group(reading): reading.questions for reading in plan}
        asked |= {key: self._at_stake(reread, key, rollouts) for key, reread in rereads.items()}
        rewards = self.scorer.score(
            [(item.bank, item.start.conversation.speakers, asked[item.start.group]) for item in rollouts], log_metric
        )
        for rollout, reward in zip(rollouts, rewards, strict=True):
            if reward is not None and not math.isfinite(reward):
                raise TrainingError(f"the reward of rollout {rollout.start.scope} is not a number: {reward}")
        return [
            _scored(rollout, reward, is_reread=rollout.start.group in rereads)
            for rollout, reward in zip(rollouts, rewards, strict=True)
        ]

    def _at_stake(self, reread: PlannedReread, group: str, rollouts: Sequence[Rollout]) -> tuple[LinkedQuestion, ...]:
        altered = {turn for item in rollouts if item.start.group == group for turn in altered_before(item)}
        return tuple(questions_at_stake(reread.questions, reread.retention, altered, self.max_retention))


def load_trajectory_task(
    run: RunDir, config: RunConfig, embedder: Embedder, answer_agent: AnswerAgent, seed: int
) -> TrajectoryTask:
    """The Memory Manager's task in a run. Reads 1_data only: banks are the policy's own.

    Raises ConfigError for another kind of credit, TrainingError when a stage of the curriculum asks nothing.
    """
    training = config.training
    if training.credit.kind != "local_global":
        raise ConfigError(f'credit.kind is {training.credit.kind!r}: trajectories need "local_global"')
    dataset = read_dataset(run)
    asked = [ask_conversation(item, questions_of(dataset, item)) for item in training_conversations(dataset)]
    for stage in training.credit.curriculum:
        if not any(item.answerable(stage.num_sessions) for item in asked):
            raise TrainingError(
                f"no question of the training split can be answered from the first {stage.num_sessions} sessions of "
                "its conversation: begin training.credit.curriculum with more, or give questions evidence turn ids"
            )
    return TrajectoryTask(
        asked,
        training.credit,
        Reading(
            build_extractor(config.extraction),
            embedder,
            config.memory_manager.prompt,
            config.retrieval.entries_per_turn,
        ),
        BankScorer(answer_agent, embedder, config.retrieval.entries_per_speaker, build_score(training)),
        training.retention_questions,
        seed,
    )


def _group(reading: PlannedReading, reread: PlannedReread | None = None) -> str:
    """A conversation may stand in a step twice: its place tells the groups apart."""
    name = f"{reading.place}/{reading.conversation.id}"
    return name if reread is None else f"{name}/{reading.conversation.sessions[reread.session].id}"


def _scored(rollout: Rollout, reward: float | None, *, is_reread: bool) -> ScoredRollout:
    decisions = [decision for _, decision in rollout.turns]
    return ScoredRollout(
        group=rollout.start.group,
        is_reread=is_reread,
        reward=reward,
        num_turns=len(rollout.turns),
        num_tokens=sum(len(sample.completion_ids) for sample, _ in rollout.turns),
        num_cut_off=sum(sample.is_cut_off for sample, _ in rollout.turns),
        num_failures=sum(decision.failure is not None for decision in decisions),
        operations=Counter(operation.kind for decision in decisions for operation in decision.operations),
    )
