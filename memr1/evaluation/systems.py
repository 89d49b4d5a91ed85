"""Which systems a report compares, and how each of them is made. A plan is data: it crosses process boundaries as JSON.

    warm_start   both agents as they were before training
    trained      both agents as training left them
    always_add   a Memory Manager that adds everything and learns nothing, with the warm start's Answer Agent
    champion     the pair that serves today, from the folder it was registered as

Loading them is the worker's business (`memr1.evaluation.worker`): this module imports no model code.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from memr1.config import AGENTS, AgentName, RunConfig, SystemName
from memr1.data.conversation import Dataset
from memr1.errors import EvaluationError
from memr1.records import Record
from memr1.run_dir import RunDir, file_digest

SMALL_MODEL_BYTES = 500_000_000  # weights up to this size are small enough to be loaded several times at once


class SystemPlan(Record):
    """How to make one system: from a configuration and the weights that replace its own, or from a pair's folder."""

    name: str
    config: RunConfig | None = None
    models: dict[AgentName, Path] = Field(default_factory=dict)  # weights in place of the configured ones
    pair_folder: Path | None = None  # instead of config and models
    always_add: bool = False  # replace the Memory Manager by the baseline


def plan_systems(
    run: RunDir, config: RunConfig, names: Iterable[SystemName], champion: Path | None = None
) -> list[SystemPlan]:
    """The plans of a run's systems, then of the champion if there is one.

    Raises EvaluationError when the trained weights are asked for and missing.
    """
    plans = [_plan(run, config, name) for name in names]
    return plans if champion is None else [*plans, SystemPlan(name="champion", pair_folder=champion)]


def _plan(run: RunDir, config: RunConfig, name: SystemName) -> SystemPlan:
    if name != "trained":
        return SystemPlan(name=name, config=config, always_add=name == "always_add")
    models = run.models(config)
    for agent, folder in models.items():
        if not folder.is_dir():
            raise EvaluationError(f"no trained weights of the {agent} in {folder}: run the train stage first")
    return SystemPlan(name=name, config=config, models=models)


def digest_work(plan: SystemPlan, dataset: Dataset, conversation_ids: Sequence[str]) -> str:
    """SHA-256 of everything a system's answers depend on: answers on disk under another digest are another system's."""
    sections = {"extraction", "retrieval", "memory_manager", "answer_agent"}
    parts = {
        "config": plan.config.model_dump(mode="json", include=sections) if plan.config else None,
        "weights": {str(agent): _digest_folder(folder) for agent, folder in sorted(plan.models.items())},
        "pair": _digest_folder(plan.pair_folder) if plan.pair_folder else None,
        "always_add": plan.always_add,
        "dataset": dataset.sha256,
        "conversations": list(conversation_ids),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def has_small_models(plan: SystemPlan) -> bool:
    """Whether several such systems fit into one machine at once. What cannot be looked at counts as large."""
    if plan.pair_folder is not None:
        return folder_bytes(plan.pair_folder) <= SMALL_MODEL_BYTES
    config = plan.config or RunConfig()
    return all(_is_small(config, agent, plan.models.get(agent)) for agent in AGENTS)


def _is_small(config: RunConfig, agent: AgentName, weights: Path | None) -> bool:
    """An adapter is small, the model under it need not be: both are weighed."""
    generator = config.agent(agent).generator
    if generator.kind != "transformers":
        return True
    folders = [] if generator.model == "tiny" else [Path(generator.model)]
    folders += [weights] if weights is not None else []
    return all(folder.is_dir() and folder_bytes(folder) <= SMALL_MODEL_BYTES for folder in folders)


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _digest_folder(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
