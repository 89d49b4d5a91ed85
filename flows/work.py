"""What the stages do in processes of their own (flows.child): library calls, and counts for DONE.json. No Prefect."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from memr1.config import RunConfig
from memr1.environment import embedding_cache
from memr1.run_dir import RunDir

if TYPE_CHECKING:
    from memr1.console import OnProgress

Counts = Mapping[str, int | float]


def accept_dataset(run: RunDir, config: RunConfig, on_progress: "OnProgress") -> Counts:
    """Read the dataset, let the suites judge it, keep what they accept."""
    from memr1.data.loading import load_dataset
    from memr1.data.stored import write_dataset
    from memr1.data.validation import validate_dataset

    accepted, _ = validate_dataset(load_dataset(config.data, config.seed), run)
    identity = write_dataset(run, accepted)
    return {
        "num_conversations": identity.num_conversations,
        "num_turns": identity.num_turns,
        "num_questions": identity.num_questions,
        "num_rejected": len(accepted.left_out),
    }


def build_training_banks(run: RunDir, config: RunConfig, on_progress: "OnProgress") -> Counts:
    """Let the untrained Memory Manager read the conversations of training and validation."""
    from memr1.agents.bank_stage import build_training_banks

    summary = build_training_banks(run, config, embedding_cache(), on_progress)
    return {
        "num_turns": summary.num_turns,
        "num_entries": summary.num_entries,
        "num_parse_failures": summary.num_parse_failures,
    }


def write_examples(run: RunDir, config: RunConfig, on_progress: "OnProgress", phase: str) -> Counts:
    """A phase's examples; the Answer Agent's are about banks that the trained Memory Manager builds now."""
    from memr1.bank.embedding import build_embedder
    from memr1.rl.prepare import write_examples

    return {"num_examples": write_examples(run, config, phase, build_embedder(embedding_cache()), on_progress)}
