"""The versions of the registered model: which one serves, which one carries a tag, and their pair folders.

Aliases: `challenger` is the pair registered last, `champion` the one that serves.
"""

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from memr1.environment import cache_folder
from memr1.errors import RegistryError
from memr1.evaluation.comparison import ServedVersion
from memr1.registry.bundle import download_bundle
from memr1.registry.tracking import connect, mlflow_errors, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
CHALLENGER, CHAMPION = "challenger", "champion"
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def find_version(client: "MlflowClient", name: str, tags: Mapping[str, str]) -> str | None:
    """The version of a model that carries these tags, if any."""
    wanted = [f"name = '{name}'", *(f"tags.`{key}` = '{value}'" for key, value in tags.items())]
    with mlflow_errors("search the registry"):
        found = client.search_model_versions(" and ".join(wanted))
    return str(found[0].version) if found else None


def champion_version(client: "MlflowClient", name: str) -> str | None:
    """The version that serves, if any."""
    with mlflow_errors("look for the champion"):
        found = client.search_registered_models(f"name = '{name}'")
        version = found[0].aliases.get(CHAMPION) if found else None
    return str(version) if version is not None else None


def promote(name: str, version: str) -> None:
    """Let a version serve: moves the alias `champion`, and notes on the version which one it replaced."""
    client = connect()
    before = champion_version(client, name)
    if before == version:
        return
    with mlflow_errors(f"promote {name} version {version}"):
        client.set_model_version_tag(name, version, "memr1.replaced_version", before or "none")
        client.set_registered_model_alias(name, CHAMPION, version)
    log.info("%s version %s is the champion now (before: %s)", name, version, before or "none")


def download_champion(model_name: str) -> Path | None:
    """The pair folder of the version that serves, with its served_version.json; None when none does."""
    version = champion_version(connect(), model_name)
    return None if version is None else download_version(model_name, version)


def load_model_pair(uri: str) -> Path:
    """The pair folder behind `models:/name@alias` or `models:/name/version`. Raises RegistryError for anything else."""
    client = connect()
    match = MODEL_URI.fullmatch(uri)
    if match is None:
        raise RegistryError(f"{uri!r} is not a registered model: write models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = match.group("name", "alias", "version")
    if alias is not None:
        with mlflow_errors(f"find {uri}"):
            version = str(client.get_model_version_by_alias(name, alias).version)
    return download_version(name, version)


def download_version(name: str, version: str) -> Path:
    """The pair folder of one version, kept in $MEMR1_HOME/cache."""
    with mlflow_errors(f"find {name} version {version}"):
        found = connect().get_model_version(name, version)
    # A new database begins at version 1 again: the number alone does not say which pair it is.
    identity = hashlib.sha256(f"{tracking_uri()} {found.source} {found.creation_timestamp}".encode()).hexdigest()[:12]
    folder = cache_folder() / "pairs" / f"{name}-{version}-{identity}"
    served = ServedVersion(model_name=name, version=version)
    return download_bundle(f"models:/{name}/{version}", folder, served)
