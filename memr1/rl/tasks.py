"""What a phase trains on: the weights it starts from, its examples, and the reward that knows them."""

import logging
from pathlib import Path

from memr1.agents.answer_agent import AnswerAgent
from memr1.agents.generators import build_generator, model_location
from memr1.bank.embedding import build_loaded_embedder
from memr1.config import AgentName, RunConfig
from memr1.data.stored import read_dataset
from memr1.environment import embedding_cache
from memr1.phases import roles_of
from memr1.records import AnyRecord, read_jsonl
from memr1.rl.examples import AnswerExample, ManagerExample, bank_at
from memr1.rl.judged_answers import build_score
from memr1.rl.prior_banks import read_prior_banks
from memr1.rl.rollout import AnswerReward, ManagerReward
from memr1.rl.shared_policy import SharedReward, share_tasks
from memr1.run_dir import RunDir

log = logging.getLogger(__name__)
Row = dict[str, str]  # `id` and `prompt`
Task = tuple[list[Row], list[Row], AnswerReward | ManagerReward | SharedReward]  # to train, to validate, the reward
ManagerTask = tuple[list[Row], list[Row], ManagerReward]


def start_location(run: RunDir, config: RunConfig, phase: str) -> str | Path:
    """The weights that a phase starts from, a folder or hub id: its policy's newest, or the configured ones.

    A shared policy starts from the Memory Manager's model, which is the Answer Agent's too, except for "tiny".
    """
    first = roles_of(phase)[0]
    trained = run.models(config, before=phase).get(first)
    return trained or model_location(config.agent(first).generator, first)


def load_task(run: RunDir, config: RunConfig, phase: str) -> Task:
    """A phase's examples and their reward; those of all its roles, if its policy plays several."""
    roles = roles_of(phase)
    if len(roles) > 1:
        return share_tasks({role: _load_role(run, config, phase, role) for role in roles})
    return _load_role(run, config, phase, roles[0])


def load_single_turns(run: RunDir, config: RunConfig, phase: str) -> ManagerTask | None:
    """What guards a training by trajectories, which itself reads no examples: those that a flow writes all the same."""
    if (run.examples(phase, "memory_manager") / "examples.jsonl").exists():
        return _load_manager_task(run, config, phase)
    log.warning("there are no examples: nothing compares the sampler with the trainer, and the last step is served")
    return None


def build_frozen_answer_agent(run: RunDir, config: RunConfig, phase: str) -> AnswerAgent:
    """The Answer Agent that a Memory Manager is rewarded through: the pair's before the phase."""
    settings, frozen = config.answer_agent, run.models(config, before=phase).get("answer_agent")
    generator = build_generator(settings.generator, "answer_agent", frozen)
    return AnswerAgent(generator, settings.prompt, settings.max_new_tokens)


def _load_role(
    run: RunDir, config: RunConfig, phase: str, role: AgentName
) -> tuple[list[Row], list[Row], AnswerReward | ManagerReward]:
    if role == "memory_manager":
        return _load_manager_task(run, config, phase)
    return _load_answer_task(run, config, phase)


def _load_manager_task(run: RunDir, config: RunConfig, phase: str) -> ManagerTask:
    train, validation = _read_examples(run.examples(phase, "memory_manager"), ManagerExample)
    examples = [*train, *validation]
    journals = read_prior_banks(run, config, phase)
    reward = ManagerReward(
        examples,
        {item.id: bank_at(journals.get(item.scope, []), item.scope, item.bank_sequence) for item in examples},
        {conversation.id: conversation.speakers for conversation in read_dataset(run).conversations},
        build_frozen_answer_agent(run, config, phase),
        build_loaded_embedder(embedding_cache()),
        config.retrieval,
        build_score(config.training),
        config.training.extra_rewards,
        config.training.retention_questions,
    )
    return _rows(train), _rows(validation), reward


def _load_answer_task(run: RunDir, config: RunConfig, phase: str) -> tuple[list[Row], list[Row], AnswerReward]:
    train, validation = _read_examples(run.examples(phase, "answer_agent"), AnswerExample)
    reward = AnswerReward([*train, *validation], build_score(config.training), config.training.extra_rewards)
    return _rows(train), _rows(validation), reward


def _read_examples(folder: Path, kind: type[AnyRecord]) -> tuple[list[AnyRecord], list[AnyRecord]]:
    train, validation = folder / "examples.jsonl", folder / "validation_examples.jsonl"
    return list(read_jsonl(train, kind)), list(read_jsonl(validation, kind)) if validation.exists() else []


def _rows(examples: list[ManagerExample] | list[AnswerExample]) -> list[Row]:
    return [{"id": item.id, "prompt": item.prompt} for item in examples]
