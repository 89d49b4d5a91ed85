"""Stage 5: the run's pair becomes a version of the registered model, and its champion if the gate says so.

    6_registry/registration.json   which version, where
    6_registry/gate.json           the decision, and every score it rests on: it can be made again from this file

Every step looks first whether it has happened, so that a killed stage can be repeated: one run gives one version.
The alias is moved last, and a pair is one version: there is no moment at which half of a pair serves.
"""

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from memr1.config import RunConfig
from memr1.data.stored import read_identity
from memr1.errors import RegistryError
from memr1.evaluation.comparison import EvaluationReport, ServedVersion
from memr1.evaluation.report import REPORT_NAME, read_report, read_report_answers
from memr1.evaluation.scores import ScoredAnswer
from memr1.records import Record, write_json
from memr1.registry.bundle import log_bundle, write_bundle
from memr1.registry.gate import (
    GateDecision,
    GateQuestion,
    Incumbent,
    decide_promotion,
    match_questions,
    refuse_stale_comparison,
)
from memr1.registry.tracking import (
    connect,
    headline,
    log_evaluation,
    mlflow_errors,
    open_mlflow_run,
    run_key,
    tracking_uri,
)
from memr1.registry.versions import (
    CHALLENGER,
    champion_version,
    download_champion,
    find_version,
    load_model_pair,
    promote,
)
from memr1.run_dir import RunDir, file_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["download_champion", "load_model_pair", "promote", "register_pair", "register_run", "replay_gate"]
log = logging.getLogger(__name__)
GATE_NAME = "gate.json"
REGISTRATION_TAG = "memr1.registration"


class Registration(Record):
    """registration.json: where the run's pair went."""

    model_name: str
    version: str
    tracking_uri: str
    mlflow_run_id: str
    promoted: bool
    champion: str  # version that serves after this stage; empty when none does


class GateRecord(Record):
    """gate.json: a decision with everything it was made from."""

    model_name: str
    challenger_version: str
    compared_with: str
    decision: GateDecision
    questions: tuple[GateQuestion, ...]


def register_run(run: RunDir, config: RunConfig) -> Registration:
    """Register the run's pair as challenger, judge it, promote it if it is better. May be repeated.

    Raises RegistryError when MLflow does not answer, EvaluationError without a report. Not promoted is a result.
    """
    name = config.registry.model_name
    report = read_report(run.evaluation)
    questions, decision = judge(report, read_report_answers(run.evaluation), config.seed)
    client = connect()
    mlflow_run = open_mlflow_run(client, run, config)
    log_evaluation(client, mlflow_run, run, report)
    version = register_pair(run, config, report)
    serving = champion_version(client, name)
    decision = _check_champion(decision, report, serving, version)
    gate = GateRecord(
        model_name=name,
        challenger_version=version,
        compared_with=_word_for(report.champion),
        decision=decision,
        questions=tuple(questions),
    )
    write_json(run.registry / GATE_NAME, gate.model_dump(mode="json"))
    _tag_decision(client, name, version, decision)
    if decision.promoted:
        promote(name, version)
    registration = Registration(
        model_name=name,
        version=version,
        tracking_uri=tracking_uri(),
        mlflow_run_id=mlflow_run,
        promoted=decision.promoted,
        champion=version if decision.promoted else serving or "",
    )
    write_json(run.registry / "registration.json", registration.model_dump(mode="json"))
    return registration


def judge(
    report: EvaluationReport, answers: Mapping[str, Sequence[ScoredAnswer]], seed: int
) -> tuple[list[GateQuestion], GateDecision]:
    """The decision on the trained pair, and the scores it rests on. Raises RegistryError without a comparison."""
    incumbent: Incumbent = "champion" if report.champion is not None else "warm_start"
    missing = [name for name in ("trained", incumbent) if name not in answers]
    if missing:
        raise RegistryError(f"the report has no system {missing[0]!r} to judge by: add it to evaluation.systems")
    questions = match_questions(answers["trained"], answers[incumbent])
    return questions, decide_promotion(questions, incumbent, seed=seed)


def replay_gate(path: Path) -> GateDecision:
    """Make the decision of a gate.json again from the scores in it. Raises RegistryError for a damaged file."""
    try:
        record = GateRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RegistryError(f"cannot read the gate's record {path}: {error}") from error
    decision = record.decision
    return decide_promotion(
        record.questions,
        decision.incumbent,
        seed=decision.seed,
        required_confidence=decision.required_confidence,
        num_samples=decision.num_samples,
    )


def register_pair(run: RunDir, config: RunConfig, report: EvaluationReport) -> str:
    """The version that holds this run's pair, registered on first call; it carries the alias `challenger`."""
    name = config.registry.model_name
    client = connect()
    tags = {REGISTRATION_TAG: registration_key(run)}
    version = find_version(client, name, tags)
    if version is None:
        version = _register_new(client, run, config, report, tags)
        log.info("registered %s version %s", name, version)
    with mlflow_errors("set the alias challenger"):
        client.set_registered_model_alias(name, CHALLENGER, version)
    return version


def registration_key(run: RunDir) -> str:
    """One key per trained and evaluated pair: the same after a kill, another after training or evaluating again."""
    return hashlib.sha256(f"{run_key(run)} {file_digest(run.evaluation / REPORT_NAME)}".encode()).hexdigest()


def _register_new(
    client: "MlflowClient", run: RunDir, config: RunConfig, report: EvaluationReport, tags: dict[str, str]
) -> str:
    import mlflow

    dataset = read_identity(run)
    mlflow_run = open_mlflow_run(client, run, config)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "pair"
        write_bundle(bundle, run, config, dataset, report)
        uri = log_bundle(client, mlflow_run, bundle, tags)
    details = {
        "memr1.run_key": run_key(run),
        "memr1.profile": config.profile,
        "memr1.dataset": dataset.name,
        "memr1.dataset_sha256": dataset.sha256,
        "memr1.licence_notice": dataset.licence_notice or "none",
    }
    figures = {f"memr1.{key}": f"{value:.4f}" for key, value in headline(report.systems["trained"]).items()}
    with mlflow_errors("register the pair"):
        # The tags are set with the version, in one step: a version without them would be registered a second time.
        version = mlflow.register_model(uri, config.registry.model_name, tags=tags | details | figures)
    return str(version.version)


def _check_champion(
    decision: GateDecision, report: EvaluationReport, serving: str | None, challenger: str
) -> GateDecision:
    """Turn the decision down when it was made against a version that no longer serves."""
    evaluated = report.champion.version if report.champion is not None else None
    if serving in (evaluated, challenger):  # the challenger serves already when a killed stage is repeated
        return decision
    now = f"version {serving}" if serving is not None else "no version"
    return refuse_stale_comparison(decision, _word_for(report.champion), now)


def _word_for(champion: ServedVersion | None) -> str:
    return "the warm start" if champion is None else f"{champion.model_name} version {champion.version}"


def _tag_decision(client: "MlflowClient", name: str, version: str, decision: GateDecision) -> None:
    with mlflow_errors("note the gate's decision"):
        client.set_model_version_tag(name, version, "memr1.promoted", str(decision.promoted).lower())
        client.set_model_version_tag(name, version, "memr1.gate", " ".join(decision.reasons))
