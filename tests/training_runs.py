"""Small runs that are ready to be trained, and the processes that train them."""

import os
from pathlib import Path

from memr1.agents.bank_stage import build_training_banks
from memr1.bank.embedding import build_embedder
from memr1.config import RunConfig, load_config
from memr1.data.loading import load_dataset
from memr1.data.stored import write_dataset
from memr1.data.validation import validate_dataset
from memr1.records import write_json
from memr1.rl.prepare import write_manager_examples
from memr1.run_dir import RunDir

SMALL = (
    "data.num_train=3",
    "data.num_validation=1",
    "data.num_test=1",
    "bank.kind=in_memory",
    "training.prompts_per_step=4",
    "training.completions_per_prompt=4",
    "training.checkpoint_every=2",
    "training.memory_manager.num_steps=4",
    "training.answer_agent.num_steps=2",
)


def prepared_run(root: Path, *overrides: str) -> tuple[RunDir, RunConfig]:
    """A run whose data, bank and Manager's examples are ready."""
    run, config = RunDir(root), load_config("quickstart", [*SMALL, *overrides])
    write_json(run.config, config.model_dump(mode="json"))
    dataset, _ = validate_dataset(load_dataset(config.data, config.seed), run)
    write_dataset(run, dataset)
    build_training_banks(run, config, root / "vectors", lambda *_: None)
    write_manager_examples(run, config, build_embedder(None))
    return run, config


def ranks_of(run: RunDir) -> list[int]:
    """Ids of the live processes that train in this run directory."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"memr1.rl.worker" in words and str(run.root.resolve()).encode() in words:
                found.append(int(folder.name))
    return found
