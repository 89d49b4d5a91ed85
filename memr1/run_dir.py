"""Every path a run writes, and the DONE markers that make it resumable. State that `ls` cannot show is not trusted.

runs/<run_id>/
    config.json environment.json logs/attempt_<n>/ logs/latest nodes/ (while several machines train)
    1_data/          conversations.jsonl questions.jsonl splits.json validation.json rejected.jsonl
    2_bank/          entries.jsonl operations.jsonl summary.json
    3_examples/      <phase>/examples.jsonl <phase>/validation_examples.jsonl
    4_checkpoints/   <phase>/checkpoint-<step>/ (resumes), <phase>/model/ (serves), served.json, metrics.jsonl
    5_evaluation/    answers.jsonl report.json report.md report.html
    6_registry/      registration.json gate.json

A phase (`memr1.phases`) is called memory_manager or answer_agent unless `training.policies` says otherwise.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from memr1.config import AgentName, RunConfig, read_resolved_config
from memr1.phases import SHARED, bank_phase, newest_phases, run_stages
from memr1.records import Record, write_json


class DoneMarker(Record):
    """Written last and atomically: the stage's inputs, what it made, and how long it took."""

    stage: str
    inputs: str  # digest of the configuration and of the files of all earlier stages
    outputs: dict[str, str]  # path relative to the run directory → SHA-256
    counts: dict[str, int | float]
    seconds: float
    finished_at: str


@dataclass(frozen=True)
class RunDir:
    """The directory of one run. Making it creates nothing."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of this run, in order; its configuration decides. Raises ConfigError without one."""
        return run_stages(read_resolved_config(self.config))

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def data(self) -> Path:
        return self.root / "1_data"

    @property
    def conversations(self) -> Path:
        return self.data / "conversations.jsonl"

    @property
    def questions(self) -> Path:
        return self.data / "questions.jsonl"

    @property
    def splits(self) -> Path:
        return self.data / "splits.json"

    @property
    def dataset(self) -> Path:
        """Name, digest and licence of the dataset (`memr1.data.stored`)."""
        return self.data / "dataset.json"

    @property
    def bank(self) -> Path:
        return self.root / "2_bank"

    def examples(self, phase: str, role: AgentName | None = None) -> Path:
        """The folder of a phase's examples, or of those of one role: a shared policy has a folder for each."""
        folder = self.root / "3_examples" / phase
        return folder / role if role and phase == SHARED else folder

    def built_banks(self, phase: str) -> Path:
        """The banks that a phase built for its examples."""
        return self.examples(phase) / "bank"

    def journal(self, config: RunConfig, phase: str) -> Path:
        """Journals of the banks that a phase's examples rest on: its own, an earlier phase's, or stage 2's."""
        built_by = bank_phase(config, before=phase)
        return self.built_banks(built_by) / "journal.jsonl" if built_by else self.bank / "operations.jsonl"

    def checkpoints(self, phase: str) -> Path:
        return self.root / "4_checkpoints" / phase

    def model(self, phase: str) -> Path:
        """The weights that a phase ended with."""
        return self.checkpoints(phase) / "model"

    def models(self, config: RunConfig, before: str | None = None) -> dict[AgentName, Path]:
        """The trained weights of the agents: those that evaluation and registration use, or those `before` a phase.

        An agent that nothing has trained is absent. The weights need not be there yet.
        """
        return {
            agent: self.model(phase)
            for agent, phase in newest_phases(config, before).items()
            if config.agent(agent).generator.kind == "transformers"
        }

    def nodes(self, phase: str) -> Path:
        """Where the machines of a training that is under way tell one another that they live."""
        return self.root / "nodes" / phase

    @property
    def evaluation(self) -> Path:
        return self.root / "5_evaluation"

    @property
    def registry(self) -> Path:
        return self.root / "6_registry"

    def folders(self, stage: str) -> list[Path]:
        """The folders a stage writes; its DONE.json stands in the last one."""
        single = {
            "validate": self.data,
            "build_bank": self.bank,
            "evaluate": self.evaluation,
            "register": self.registry,
        }
        if stage in single:
            return [single[stage]]
        phase = stage.removeprefix("train_")
        return [self.examples(phase), self.checkpoints(phase)]

    def done_file(self, stage: str) -> Path:
        return self.folders(stage)[-1] / "DONE.json"

    def read_done(self, stage: str) -> DoneMarker | None:
        """The stage's marker, or None when it has not finished on its present inputs."""
        try:
            marker = DoneMarker.model_validate_json(self.done_file(stage).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return marker if marker.inputs == self.inputs_digest(stage) else None

    def write_done(self, stage: str, counts: dict[str, int | float], seconds: float) -> DoneMarker:
        """Seal a stage: digest every file it wrote, then write the marker."""
        files = sorted(path for folder in self.folders(stage) for path in folder.rglob("*") if path.is_file())
        marker = DoneMarker(
            stage=stage,
            inputs=self.inputs_digest(stage),
            outputs={str(path.relative_to(self.root)): file_digest(path) for path in files if _is_artefact(path)},
            counts=counts,
            seconds=round(seconds, 2),
            finished_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        )
        write_json(self.done_file(stage), marker.model_dump(mode="json"))
        return marker

    def inputs_digest(self, stage: str) -> str:
        """Digest of what a stage depends on: the configuration and the outputs of every earlier stage."""
        digest = hashlib.sha256(self.config.read_bytes())
        stages = self.stages
        for earlier in stages[: stages.index(stage)]:
            try:
                outputs = json.loads(self.done_file(earlier).read_text(encoding="utf-8"))["outputs"]
            except (OSError, ValueError, KeyError):
                outputs = None
            digest.update(json.dumps(outputs, sort_keys=True).encode())
        return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_artefact(path: Path) -> bool:
    """Resume-only state is not an output: a checkpoint may be pruned, a database rewrites its own files."""
    parts = path.parts
    return not (
        path.name in ("DONE.json",)
        or path.suffix in (".partial", ".lock")
        or any(part.startswith("checkpoint-") or part.endswith(".lance") for part in parts)
    )
