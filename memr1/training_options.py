"""The `[training]` section of a run's configuration (memr1.config): two algorithms, and what both need to know."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PositiveInt, Tag, field_validator, model_validator

from memr1.model_options import EndpointModel
from memr1.records import Record, kind_unless_given

PER_TURN_LOSSES = ("grpo", "dr_grpo", "gspo")  # those that average over completions, not over all tokens of a batch
RewardName = Literal["exact_match", "token_f1", "judge"]


class LoraConfig(Record):
    """Train low-rank adapters instead of all weights."""

    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(32, ge=1, description="Scale of the adapters.")


class AgentTraining(Record):
    """What differs between the training of the two agents."""

    num_steps: int = Field(
        30, ge=0, description="Optimiser steps, of every round if there are rounds; 0 keeps the warm start."
    )
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate; training.schedule says how it moves.")
    kl_coefficient: float = Field(0.03, ge=0, description="Weight of the KL penalty against the starting policy.")


class StagedPolicies(Record):
    """Two policies, as in the paper: the Memory Manager learns, then the Answer Agent on the banks that it builds."""

    kind: Literal["staged"] = "staged"


class AlternatingPolicies(Record):
    """Two policies that learn in rounds, each through the other as the round before left it."""

    kind: Literal["alternating"]
    num_rounds: int = Field(2, ge=2, description="Rounds; in each, both agents take their `num_steps` steps.")


class SharedPolicy(AgentTraining):
    """One policy plays both roles; these options stand in for [training.memory_manager] and [training.answer_agent]."""

    kind: Literal["shared"]


PoliciesConfig = Annotated[
    Annotated[StagedPolicies, Tag("staged")]
    | Annotated[AlternatingPolicies, Tag("alternating")]
    | Annotated[SharedPolicy, Tag("shared")],
    kind_unless_given("staged"),
]


class GuardConfig(Record):
    """When a training is stopped for its own good."""

    max_kl: float = Field(2.0, gt=0, description="Largest divergence from the starting policy, nats per token.")
    max_parse_failures: float = Field(0.95, gt=0, description="Largest share of completions that cannot be read …")
    patience: int = Field(5, ge=1, description="… and how many steps in a row it, or a constant policy, is tolerated.")
    memory_preflight: bool = Field(True, description="Try the largest micro-batch before the first step.")
    max_sampler_gap: float | None = Field(
        None,
        gt=0,
        description="Largest mean difference between the sampler's and the trainer's log-probabilities of the same "
        "tokens, nats; unset: 0.001 in float32, 0.1 in bfloat16 or with vLLM.",
    )


class StepCredit(Record):
    """The paper's bandit: a rollout is one turn, read from the bank that stage 2 built before it."""

    kind: Literal["step"] = "step"


class CurriculumStage(NamedTuple):
    """Steps of training on the first `num_sessions` sessions of every conversation."""

    num_sessions: PositiveInt
    num_steps: PositiveInt


class LocalGlobalCredit(Record):
    """LoGo-GRPO (Memory-R2): whole trajectories scored by the bank they end with, and rereadings of one session."""

    kind: Literal["local_global"]
    conversations_per_step: int = Field(4, ge=1, description="Training conversations read in one optimiser step.")
    num_trajectories: int = Field(8, ge=2, description="Readings of each conversation from an empty bank: one group.")
    num_rereads: int = Field(4, ge=2, description="Readings of a session from one bank before it: another group.")
    reread_probability: float = Field(
        0.5, ge=0, le=1, description="Chance of a session to be read again; 0 leaves whole trajectories alone."
    )
    max_questions: int = Field(16, ge=1, description="Questions that score a rollout, the same for its whole group.")
    curriculum: tuple[CurriculumStage, ...] = Field(
        (CurriculumStage(2, 10), CurriculumStage(4, 10), CurriculumStage(8, 20)),
        min_length=1,
        description="Stages: how many sessions of a conversation are read, for how many steps. The last one stays.",
    )


CreditConfig = Annotated[
    Annotated[StepCredit, Tag("step")] | Annotated[LocalGlobalCredit, Tag("local_global")], kind_unless_given("step")
]


class InProcessRollout(Record):
    """Completions are sampled by the training processes from the very weights that they train."""

    kind: Literal["in_process"] = "in_process"
    batch_size: int = Field(512, ge=1, description="Completions that one process decodes together.")


class VllmColocatedRollout(Record):
    """Completions are sampled by vLLM on the training GPUs (extra "vllm"); it gets the new weights at every step."""

    kind: Literal["vllm_colocate"]
    gpu_memory_utilization: float = Field(0.3, gt=0, lt=1, description="Share of every GPU's memory that vLLM takes.")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one copy of the sampler's weights.")
    sleep: bool = Field(False, description="Give vLLM's memory back during the optimiser step; costs a reload.")


class VllmServerRollout(Record):
    """Completions are sampled by a vLLM server at $MEMR1_VLLM_URL on GPUs of its own (extra "vllm")."""

    kind: Literal["vllm_server"]
    timeout_seconds: float = Field(240.0, gt=0, description="How long training waits for the server to be up.")


RolloutConfig = Annotated[
    Annotated[InProcessRollout, Tag("in_process")]
    | Annotated[VllmColocatedRollout, Tag("vllm_colocate")]
    | Annotated[VllmServerRollout, Tag("vllm_server")],
    kind_unless_given("in_process"),
]


class ExtraRewards(Record):
    """Weights of what is added to the score of the answers (memr1.rl.reward); 0 leaves a reward out."""

    format: float = Field(0.0, ge=0, description="Output that can be read: 1, else 0.")
    memory_size: float = Field(
        0.0, ge=0, description="Words that take the bank over 0.7 of what was read: down to -1 (Manager; Memory-R2)."
    )
    evidence_kept: float = Field(
        0.0, ge=0, description="Share of the questions' evidence turns that the bank still rests on (Manager)."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Those that count."""
        return tuple(name for name, weight in self if weight > 0)


class TrainingOptions(Record):
    """What every algorithm needs to know."""

    reward: RewardName = Field("exact_match", description="How an answer is scored.")
    judge: EndpointModel | None = Field(None, description="The model that judges answers when the reward is judge.")
    extra_rewards: ExtraRewards = ExtraRewards()
    prompts_per_step: int = Field(32, ge=1, description="Different training examples in one optimiser step.")
    completions_per_prompt: int = Field(8, ge=2, description="Size of a rollout group.")
    micro_batch: int = Field(128, ge=1, description="Completions per process in one forward and backward pass.")
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, a third more time in the loss."
    )
    schedule: Literal["linear", "constant"] = Field(
        "linear", description="The learning rate after its warm-up: linear decay to 0, or no change."
    )
    warmup_steps: int = Field(0, ge=0, description="Optimiser steps over which the learning rate rises from 0.")
    rollout: RolloutConfig = InProcessRollout()
    max_prompt_tokens: int | None = Field(
        None, ge=1, description="Examples with a longer prompt are left out, counted and listed; none: all are kept."
    )
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of the rollouts.")
    max_examples: int = Field(2000, ge=1, description="Training examples kept per agent, chosen by the run's seed.")
    retention_questions: int = Field(
        4, ge=0, description="Questions about other facts of the bank scored with a turn's own (Manager's reward)."
    )
    checkpoint_every: int = Field(10, ge=1, description="Steps between checkpoints.")
    max_validation_examples: int = Field(
        64, ge=0, description="Validation examples that choose the checkpoint to serve; 0 serves the last one."
    )
    num_processes: int = Field(
        2, ge=1, description="Training processes over all machines: one per GPU, or CPU cores to use."
    )
    num_nodes: int = Field(1, ge=1, description="Machines that train together; docs/training.md says how they meet.")
    deepspeed: Literal["zero1", "zero2", "zero3", "zero3_offload"] = Field(
        "zero2", description="File of deepspeed_configs/ that shards the training."
    )
    policies: PoliciesConfig = StagedPolicies()
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

    @property
    def processes_per_node(self) -> int:
        """Training processes of one machine."""
        return self.num_processes // self.num_nodes

    @model_validator(mode="after")
    def _spreads_evenly(self) -> "TrainingOptions":
        if self.num_processes % self.num_nodes:
            raise ValueError(f"num_processes = {self.num_processes} do not spread evenly over {self.num_nodes} nodes")
        parallel = self.rollout.tensor_parallel if self.rollout.kind == "vllm_colocate" else 1
        if self.processes_per_node % parallel:
            raise ValueError(f"tensor_parallel = {parallel} does not divide {self.processes_per_node} GPUs of a node")
        return self

    @model_validator(mode="after")
    def _divides_evenly(self) -> "TrainingOptions":
        passes = self.num_processes * self.num_accumulation_steps
        if self.completions_per_step % passes:
            raise ValueError(
                f"prompts_per_step x completions_per_prompt = {self.completions_per_step} does not divide into "
                f"{passes} equal batches ({self.num_processes} processes, micro_batch {self.micro_batch})"
            )
        if self.prompts_per_step % self.num_processes:  # rollouts are asked what any of their group put at stake
            raise ValueError(
                f"prompts_per_step = {self.prompts_per_step} does not divide over {self.num_processes} processes: a "
                "rollout group is scored by one process"
            )
        return self

    @model_validator(mode="after")
    def _has_its_judge(self) -> "TrainingOptions":
        if self.reward == "judge" and self.judge is None:
            raise ValueError('reward = "judge" needs one: set training.judge.kind=endpoint and training.judge.model')
        if self.reward != "judge" and self.judge is not None:
            raise ValueError(f'reward = "{self.reward}" asks no judge: set training.reward=judge, or name no judge')
        return self


class GrpoTraining(TrainingOptions):
    """Group Relative Policy Optimization (TRL) under DeepSpeed: completions of one prompt are each other's baseline."""

    algorithm: Literal["grpo"] = "grpo"
    credit: CreditConfig = StepCredit()
    loss: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "gspo"] = Field(
        "grpo", description="The paper's loss, or a named variant of it (TRL's names; gspo: one ratio per sequence)."
    )
    skip_zero_variance: bool = Field(
        False, description="Leave groups of equal rewards out of the loss, their KL penalty too (always when it is 0)."
    )

    @model_validator(mode="after")
    def _credit_fits(self) -> "GrpoTraining":
        """Raises ValueError for what trajectories cannot be combined with."""
        if self.credit.kind == "step":
            return self
        extras = ", ".join(self.extra_rewards.names)
        clashes = {
            f'averages turn by turn, loss = "{self.loss}" token by token: set loss to {" or ".join(PER_TURN_LOSSES)}':
                self.loss not in PER_TURN_LOSSES,
            f'samples turn after turn in the training processes, not by rollout.kind = "{self.rollout.kind}": '
            'set rollout.kind = "in_process"':
                self.rollout.kind != "in_process",
            'lets a Memory Manager read whole sessions, policies.kind = "shared" mixes its turns with questions: '
            "choose one of the two":
                self.policies.kind == "shared",
            f"scores whole sessions, extra_rewards ({extras}) single turns: choose one": bool(extras),
            "keeps the KL penalty of groups without variance: set skip_zero_variance = false":
                self.skip_zero_variance,
        }  # fmt: skip
        for clash, is_so in clashes.items():
            if is_so:
                raise ValueError(f'credit.kind = "local_global" {clash}')
        return self


class PpoTraining(TrainingOptions):
    """Proximal Policy Optimization under DeepSpeed: a value head on the policy is the baseline, token by token."""

    algorithm: Literal["ppo"]
    credit: StepCredit = StepCredit()
    num_epochs: int = Field(2, ge=1, description="Optimiser passes over the rollouts of one step.")
    clip_range: float = Field(0.2, gt=0, description="How far a pass may move a token's probability ratio, or a value.")
    critic_learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate of the value head.")
    value_coefficient: float = Field(0.5, ge=0, description="Weight of the value loss.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Generalized advantage estimation: 0 trusts the critic.")

    @field_validator("credit", mode="before")
    @classmethod
    def _has_no_groups(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") == "local_global":
            raise ValueError(
                'kind = "local_global" compares the rollouts of a group, PPO has a critic instead: '
                'set training.algorithm = "grpo", or training.credit.kind = "step"'
            )
        return value


TrainingConfig = Annotated[
    Annotated[GrpoTraining, Tag("grpo")] | Annotated[PpoTraining, Tag("ppo")], kind_unless_given("grpo", "algorithm")
]
