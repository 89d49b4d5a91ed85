"""Every path a run writes, and the DONE markers that make it resumable. State that `ls` cannot show is not trusted.

runs/<run_id>/
    config.json environment.json logs/attempt_<n>/ logs/latest
    1_data/          conversations.jsonl questions.jsonl splits.json validation.json rejected.jsonl
    2_bank/          entries.jsonl operations.jsonl summary.json
    3_examples/      <agent>/…
    4_checkpoints/   <agent>/checkpoint-<step>/ (resumes), <agent>/model/ (serves), metrics.jsonl
    5_evaluation/    answers.jsonl report.json report.md report.html
    6_registry/      registration.json gate.json
"""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from memr1.config import AgentName
from memr1.records import Record, write_json

StageName = Literal["validate", "build_bank", "train_memory_manager", "train_answer_agent", "evaluate", "register"]
STAGES: tuple[StageName, ...] = (
    "validate",
    "build_bank",
    "train_memory_manager",
    "train_answer_agent",
    "evaluate",
    "register",
)


class DoneMarker(Record):
    """Written last and atomically: the stage's inputs, what it made, and how long it took."""

    stage: StageName
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

    def examples(self, agent: AgentName) -> Path:
        return self.root / "3_examples" / agent

    def checkpoints(self, agent: AgentName) -> Path:
        return self.root / "4_checkpoints" / agent

    def model(self, agent: AgentName) -> Path:
        """The trained weights that evaluation and registration use."""
        return self.checkpoints(agent) / "model"

    @property
    def evaluation(self) -> Path:
        return self.root / "5_evaluation"

    @property
    def registry(self) -> Path:
        return self.root / "6_registry"

    def folders(self, stage: StageName) -> list[Path]:
        """The folders a stage writes; its DONE.json stands in the last one."""
        if stage == "validate":
            return [self.data]
        if stage == "build_bank":
            return [self.bank]
        if stage == "evaluate":
            return [self.evaluation]
        if stage == "register":
            return [self.registry]
        agent: AgentName = "memory_manager" if stage == "train_memory_manager" else "answer_agent"
        return [self.examples(agent), self.checkpoints(agent)]

    def done_file(self, stage: StageName) -> Path:
        return self.folders(stage)[-1] / "DONE.json"

    def read_done(self, stage: StageName) -> DoneMarker | None:
        """The stage's marker, or None when it has not finished on its present inputs."""
        try:
            marker = DoneMarker.model_validate_json(self.done_file(stage).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return marker if marker.inputs == self.inputs_digest(stage) else None

    def write_done(self, stage: StageName, counts: dict[str, int | float], seconds: float) -> DoneMarker:
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

    def inputs_digest(self, stage: StageName) -> str:
        """Digest of what a stage depends on: the configuration and the outputs of every earlier stage."""
        digest = hashlib.sha256(self.config.read_bytes())
        for earlier in STAGES[: STAGES.index(stage)]:
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
