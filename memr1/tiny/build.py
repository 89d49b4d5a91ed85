"""Make the shipped weights from nothing: `python -m memr1.tiny.build [--out DIR] [--work DIR]`.

    tokenizer        byte-level BPE over the world's templates and invented words
    memory_manager   a fresh network with a planted induction circuit, demonstrations in rounds (memory_manager_1 …)
    answer_agent     the same, in parallel
    exam.json        the gate: fit to start reinforcement from?

Every stage writes under the work folder and takes its name at its end: a stage whose output is there is skipped, so an
interrupted build goes on where it stopped. Delete the work folder to begin anew.
"""

import argparse
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from transformers import AutoTokenizer

from memr1.agents.transformers_generator import load_model
from memr1.bank.embedding import Embedder, HashEmbedder, MiniLmEmbedder
from memr1.config import AGENTS, AgentName
from memr1.data.synthetic import WORLDS, Level, SyntheticOptions, build_synthetic_dataset
from memr1.errors import AgentError, TrainingError
from memr1.records import Record, write_json
from memr1.tiny.architecture import VOCABULARY_SIZE, Shape, build_network
from memr1.tiny.exam import DecisionRates, PairScore, rate_decisions, score_pair
from memr1.tiny.tokenizer import END, PAD, write_tokenizer
from memr1.tiny.warm_start import WARM_START, WarmStartOptions, show_demonstrations
from memr1.tiny.weights import WEIGHTS_FOLDER

log = logging.getLogger(__name__)
COST_NAME = "cost.json"
SHIPPED_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja",
)  # fmt: skip

# Decision → least share of sampled completions that are right (DecisionRates): reinforcement must see enough of them.
LEAST_SAMPLED = {"new": 0.8, "change": 0.25, "removal": 0.2, "current": 0.8, "former": 0.2, "missing": 0.75}


class Gate(Record):
    """What a warm pair must reach before it is written out."""

    exact_match: tuple[float, float] = (0.2, 0.6)  # above: nothing left to learn; below: nothing to learn from
    sampled: dict[str, float] = Field(default_factory=lambda: dict(LEAST_SAMPLED))
    updates_on_new: float = 0.01  # a new fact that overwrites another one


class BuildOptions(Record):
    """Everything a build depends on."""

    seed: int = 7
    shape: Shape = Shape()
    warm_start: dict[AgentName, tuple[WarmStartOptions, ...]] = WARM_START
    gate: Gate | None = Gate()  # none: the exam is taken and not judged
    num_exam_conversations: int = 60
    num_exam_banks: int = 200
    hash_embedder: bool = False  # retrieve by shared words only: no embedding model is loaded


class _Cost(Record):
    processor_seconds: float


class LevelExam(Record):
    """On conversations and banks of one level of the synthetic world."""

    score: PairScore | None  # none: nothing that the Memory Manager says can be read
    decisions: dict[str, DecisionRates]


class Exam(Record):
    """What exam.json holds."""

    processor_seconds: dict[str, float]  # of each stage, when it was made; the two agents are made side by side
    num_parameters: int
    levels: dict[Level, LevelExam]


def build_tiny_pair(work: Path, out: Path, options: BuildOptions) -> Exam:
    """Run what is missing of the build, then write both agents' folders. Raises TrainingError at the gate."""
    seconds = {"tokenizer": _stage(work / "tokenizer", lambda folder: _make_tokenizer(folder, options))}
    seconds |= _train_agents(work, options)
    exam = _take_exam(work, options, seconds)
    write_json(work / "exam.json", exam.model_dump(mode="json"))
    if options.gate is not None:
        _judge(exam.levels["easy"], options.gate)
    for agent in AGENTS:
        _ship(_last_folder(work, agent, options), out / agent)
    write_json(out / "exam.json", exam.model_dump(mode="json"))
    return exam


def warm_up_agent(work: Path, agent: AgentName, options: BuildOptions) -> dict[str, float]:
    """Train one agent on one thread, round after round, what is missing; return every round's processor seconds."""
    torch.set_num_threads(1)
    seconds: dict[str, float] = {}
    before = work / "tokenizer"
    for number, shown in enumerate(options.warm_start[agent], 1):
        folder = round_folder(work, agent, number)
        seconds[folder.name] = _stage(folder, partial(_train, before, number, agent, shown, options))
        before = folder
    return seconds


def round_folder(work: Path, agent: AgentName, number: int) -> Path:
    """Where the agent is kept after a round of demonstrations, counted from 1."""
    return work / f"{agent}_{number}"


def _last_folder(work: Path, agent: AgentName, options: BuildOptions) -> Path:
    return round_folder(work, agent, len(options.warm_start[agent]))


def _stage(folder: Path, make: Callable[[Path], None]) -> float:
    """Make a folder in one rename, unless it is there; return the processor seconds that it cost when it was made."""
    if folder.exists():
        log.info("%s is there: skipped", folder)
        return _Cost.model_validate_json((folder / COST_NAME).read_bytes()).processor_seconds
    started = time.process_time()
    unfinished = folder.with_name(folder.name + ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    make(unfinished)
    cost = _Cost(processor_seconds=round(time.process_time() - started, 3))
    write_json(unfinished / COST_NAME, cost.model_dump())
    os.replace(unfinished, folder)
    log.info("%s: %.0f processor seconds", folder, cost.processor_seconds)
    return cost.processor_seconds


def _make_tokenizer(folder: Path, options: BuildOptions) -> None:
    write_tokenizer(folder, VOCABULARY_SIZE, options.seed)


def _train_agents(work: Path, options: BuildOptions) -> dict[str, float]:
    """Both agents at once, each in a process of its own."""
    with ProcessPoolExecutor(len(AGENTS), multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(_warm_up_in_process, work, agent, options) for agent in AGENTS]
        return {name: seconds for future in running for name, seconds in future.result().items()}


def _warm_up_in_process(work: Path, agent: AgentName, options: BuildOptions) -> dict[str, float]:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    return warm_up_agent(work, agent, options)


def _train(
    before: Path, number: int, agent: AgentName, shown: WarmStartOptions, options: BuildOptions, folder: Path
) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(str(before), padding_side="left")
    network = load_model(before).float() if number > 1 else _start_network(tokenizer, options)
    show_demonstrations(network, tokenizer, agent, shown, options.seed)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _start_network(tokenizer: Any, options: BuildOptions) -> Any:
    network = build_network(options.shape, options.seed)
    network.config.pad_token_id, network.config.eos_token_id = tokenizer.convert_tokens_to_ids([PAD, END])
    network.generation_config.pad_token_id = network.config.pad_token_id
    network.generation_config.eos_token_id = network.config.eos_token_id
    return network


def _take_exam(work: Path, options: BuildOptions, seconds: dict[str, float]) -> Exam:
    embedder = HashEmbedder() if options.hash_embedder else MiniLmEmbedder(work / "vectors.sqlite")
    return Exam(
        processor_seconds=seconds,
        num_parameters=sum(p.numel() for p in build_network(options.shape, options.seed).parameters()),
        levels={level: _examine(work, options, level, embedder) for level in WORLDS},
    )


def _examine(work: Path, options: BuildOptions, level: Level, embedder: Embedder) -> LevelExam:
    folders = {agent: _last_folder(work, agent, options) for agent in AGENTS}
    dataset = build_synthetic_dataset(
        SyntheticOptions(level=level, num_train=1, num_validation=1, num_test=options.num_exam_conversations),
        options.seed,
    )
    decisions: dict[str, DecisionRates] = {}
    for agent in AGENTS:
        decisions |= rate_decisions(agent, folders[agent], level, options.num_exam_banks, options.seed)
    try:
        score = score_pair(folders, dataset, level, embedder)
    except AgentError as error:
        log.warning("%s", error)
        score = None
    return LevelExam(score=score, decisions=decisions)


def _judge(exam: LevelExam, gate: Gate) -> None:
    low, high = gate.exact_match
    reached = exam.score.exact_match if exam.score else 0.0
    failures = [] if low <= reached <= high else [f"exact match {reached:.3f} is not between {low} and {high}"]
    for decision, least in gate.sampled.items():
        if exam.decisions[decision].sampled < least:
            failures.append(f"{decision} is right in {exam.decisions[decision].sampled:.3f}, below {least}")
    if exam.decisions["new"].sampled_updates > gate.updates_on_new:
        failures.append(f"a new fact overwrites another in {exam.decisions['new'].sampled_updates:.3f}")
    if failures:
        raise TrainingError(
            f"the warm pair is no start for reinforcement: {'; '.join(failures)}. See exam.json in the work folder; "
            "show more demonstrations or change their bias"
        )


def _ship(trained: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in SHIPPED_FILES:
        shutil.copy(trained / name, folder / name)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m memr1.tiny.build", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS_FOLDER, help="folder of the finished weights")
    parser.add_argument("--work", type=Path, default=Path(".memr1/tiny"), help="folder of the build's stages")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    exam = build_tiny_pair(arguments.work, arguments.out, BuildOptions())
    print(exam.model_dump_json(indent=2))


if __name__ == "__main__":
    main()
