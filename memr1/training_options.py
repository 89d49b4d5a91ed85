"""The `[training]` section of a run's configuration (memr1.config): two algorithms, and what both need to know."""

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from memr1.records import Record, kind_unless_given


class LoraConfig(Record):
    """Train low-rank adapters instead of all weights."""

    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(32, ge=1, description="Scale of the adapters.")


class AgentTraining(Record):
    """What differs between the training of the two agents."""

    num_steps: int = Field(30, ge=0, description="Optimiser steps; 0 keeps the warm start.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate; decays linearly to 0.")
    kl_coefficient: float = Field(0.03, ge=0, description="Weight of the KL penalty against the starting policy.")


class GuardConfig(Record):
    """When a training is stopped for its own good."""

    max_kl: float = Field(2.0, gt=0, description="Largest divergence from the starting policy, nats per token.")
    max_parse_failures: float = Field(0.95, gt=0, description="Largest share of completions that cannot be read …")
    patience: int = Field(5, ge=1, description="… and how many steps in a row it, or a constant policy, is tolerated.")


class TrainingOptions(Record):
    """What every algorithm needs to know."""

    reward: Literal["exact_match", "token_f1"] = Field("exact_match", description="How an answer is scored.")
    prompts_per_step: int = Field(32, ge=1, description="Different training examples in one optimiser step.")
    completions_per_prompt: int = Field(8, ge=2, description="Size of a rollout group.")
    micro_batch: int = Field(128, ge=1, description="Completions per process in one forward and backward pass.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of the rollouts.")
    max_examples: int = Field(2000, ge=1, description="Training examples kept per agent, chosen by the run's seed.")
    retention_questions: int = Field(
        4, ge=0, description="Questions about other facts of the bank scored with a turn's own (Manager's reward)."
    )
    checkpoint_every: int = Field(10, ge=1, description="Steps between checkpoints.")
    num_processes: int = Field(2, ge=1, description="Training processes: one per GPU, or CPU cores to use.")
    deepspeed: Literal["zero1", "zero2", "zero3", "zero3_offload"] = Field(
        "zero2", description="File of deepspeed_configs/ that shards the training."
    )
    lora: LoraConfig | None = Field(None, description="Low-rank adapters; all weights are trained without it.")
    guards: GuardConfig = GuardConfig()
    memory_manager: AgentTraining = AgentTraining()
    answer_agent: AgentTraining = AgentTraining()

    @property
    def completions_per_step(self) -> int:
        """Rollouts of one optimiser step, over all processes."""
        return self.prompts_per_step * self.completions_per_prompt

    @property
    def num_accumulation_steps(self) -> int:
        """Forward and backward passes of one process in one optimiser step."""
        return -(-self.completions_per_step // (self.num_processes * self.micro_batch))

    @model_validator(mode="after")
    def _divides_evenly(self) -> "TrainingOptions":
        passes = self.num_processes * self.num_accumulation_steps
        if self.completions_per_step % passes:
            raise ValueError(
                f"prompts_per_step x completions_per_prompt = {self.completions_per_step} does not divide into "
                f"{passes} equal batches ({self.num_processes} processes, micro_batch {self.micro_batch})"
            )
        if (
            self.prompts_per_step % self.num_processes
        ):  # a Manager's rollouts are asked what any of their group put at stake
            raise ValueError(
                f"prompts_per_step = {self.prompts_per_step} does not divide over {self.num_processes} processes: a "
                "rollout group is scored by one process"
            )
        return self


class GrpoTraining(TrainingOptions):
    """Group Relative Policy Optimization (TRL) under DeepSpeed: completions of one prompt are each other's baseline."""

    algorithm: Literal["grpo"] = "grpo"
    loss: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "gspo"] = Field(
        "grpo", description="The paper's loss, or a named variant of it (TRL's names; gspo: one ratio per sequence)."
    )


class PpoTraining(TrainingOptions):
    """Proximal Policy Optimization under DeepSpeed: a value head on the policy is the baseline, token by token."""

    algorithm: Literal["ppo"]
    num_epochs: int = Field(2, ge=1, description="Optimiser passes over the rollouts of one step.")
    clip_range: float = Field(0.2, gt=0, description="How far a pass may move a token's probability ratio, or a value.")
    critic_learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate of the value head.")
    value_coefficient: float = Field(0.5, ge=0, description="Weight of the value loss.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Generalized advantage estimation: 0 trusts the critic.")


TrainingConfig = Annotated[
    Annotated[GrpoTraining, Tag("grpo")] | Annotated[PpoTraining, Tag("ppo")], kind_unless_given("grpo", "algorithm")
]
