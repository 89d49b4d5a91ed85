"""The training phases of a run (`training.policies`): which policy learns when, and what it begins with.

    staged         memory_manager · answer_agent
    alternating    round_1_memory_manager · round_1_answer_agent · round_2_memory_manager · …
    shared         shared

A phase is known by its name: so are its folders in 3_examples and 4_checkpoints, its stage and its metrics. One rule
holds for all of them: a phase begins with the pair as the phases before it left it. That pair's weights are what the
policy starts from and is kept near to, its Memory Manager builds the banks of the examples, and its Answer Agent,
frozen, is what a Memory Manager is rewarded through.
"""

from memr1.config import AGENTS, AgentName, RunConfig
from memr1.errors import ConfigError

SHARED = "shared"


def training_phases(config: RunConfig) -> tuple[str, ...]:
    """The names of a run's phases, in order."""
    policies = config.training.policies
    if policies.kind == "shared":
        return (SHARED,)
    if policies.kind == "alternating":
        return tuple(f"round_{number}_{agent}" for number in range(1, policies.num_rounds + 1) for agent in AGENTS)
    return AGENTS


def phase_index(config: RunConfig, phase: str) -> int:
    """Place of a phase, from 0. Raises ConfigError for one that the run does not have."""
    phases = training_phases(config)
    if phase not in phases:
        kind = config.training.policies.kind
        raise ConfigError(
            f"no training phase {phase!r} under training.policies.kind = {kind!r}: use {', '.join(phases)}"
        )
    return phases.index(phase)


def roles_of(phase: str) -> tuple[AgentName, ...]:
    """The agents that the phase's policy plays: one of them, or both."""
    return AGENTS if phase == SHARED else tuple(agent for agent in AGENTS if phase.endswith(agent))


def newest_phases(config: RunConfig, before: str | None = None) -> dict[AgentName, str]:
    """Which phase each agent's weights are from, once all phases are done or `before` one of them begins.

    An agent that no phase has trained yet is absent: it is the configured warm start.
    """
    phases = training_phases(config)
    done = phases if before is None else phases[: phase_index(config, before)]
    return {role: phase for phase in done for role in roles_of(phase)}


def bank_phase(config: RunConfig, before: str | None = None) -> str | None:
    """The phase that lets the newest trained Memory Manager (see `newest_phases`) read the training conversations.

    It is the one that follows the Manager's own. None: there is no such phase, or no Manager has been trained yet.
    """
    phases = training_phases(config)
    trained = newest_phases(config, before).get("memory_manager", phases[-1])
    following = phases.index(trained) + 1
    return phases[following] if following < len(phases) else None


def phase_seed(config: RunConfig, phase: str) -> int:
    """The run's seed, another one in every round: a round draws its own examples and completions."""
    return config.seed + phase_index(config, phase) // len(AGENTS)


def stage_of(phase: str) -> str:
    """The stage that does a phase."""
    return f"train_{phase}"


def run_stages(config: RunConfig) -> tuple[str, ...]:
    """The stages of a run, in order."""
    return ("validate", "build_bank", *map(stage_of, training_phases(config)), "evaluate", "register")
