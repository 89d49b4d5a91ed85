"""A run directory's copy in S3, stage by stage, so that another machine can pick the run up. The only door to boto3.

Layout: <uri>/<run id>/ holds the run directory's own paths. Every object is uploaded with a SHA-256 that S3 checks and
keeps; a stage's DONE.json goes last, so that a stage is either wholly there or not there. Both directions skip what is
already equal, so that an interrupted transfer continues when it is repeated.

Left out: checkpoints of a training that has not finished, and a bank's database files (its journal is the truth).
The server and the credentials are boto3's own: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_PROFILE …
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from memr1.errors import StorageError
from memr1.records import Record
from memr1.run_dir import DoneMarker, RunDir, file_digest

logger = logging.getLogger(__name__)

_CONFIG = Config(retries={"max_attempts": 4, "mode": "standard"}, connect_timeout=10, read_timeout=60)


class TransferSummary(Record):
    """What one transfer had to do."""

    num_sent: int
    num_skipped: int
    num_bytes: int


def mirror_stage(run: RunDir, stage: str, uri: str) -> TransferSummary:
    """Copy a finished stage to <uri>/<run id>/. Raises StorageError when it is not finished or S3 refuses."""
    marker = run.read_done(stage)
    if marker is None:
        raise StorageError(f"stage {stage} of {run.root} is not done on its present inputs: finish it, then mirror it.")
    place = _Place.of(uri, run.root)
    general = [path for path in (run.config, run.environment) if path.exists()]
    expected = {**{_relative(run, path): file_digest(path) for path in general}, **marker.outputs}
    done = _relative(run, run.done_file(stage))
    sizes = [place.upload(run.root / name, name, digest) for name, digest in expected.items()]
    sizes.append(place.upload(run.done_file(stage), done, file_digest(run.done_file(stage))))
    summary = _summarise(sizes)
    logger.info("%s: %d file(s) to %s, %d already there", stage, summary.num_sent, place, summary.num_skipped)
    return summary


def fetch_run(uri: str, root: Path) -> RunDir:
    """Bring every whole stage of <uri>/<name of root>/ into `root`, each file checked against its SHA-256.

    Raises StorageError when there is no such run, when `root` holds another one, or when a file arrives damaged.
    """
    run, place = RunDir(root), _Place.of(uri, root)
    digest = place.stored_digest(run.config.name)
    if digest is None:
        raise StorageError(f"there is no run at {place}: check storage.uri and the run's name.")
    if run.config.exists() and file_digest(run.config) != digest:
        raise StorageError(f"{run.config} differs from the one at {place}: fetch the run into another directory.")
    sizes = [place.download(root, run.config.name, digest)]
    environment = place.stored_digest(run.environment.name)
    if environment is not None and not run.environment.exists():
        sizes.append(place.download(root, run.environment.name, environment))
    for stage in run.stages:
        sizes += _fetch_stage(run, stage, place)
    summary = _summarise(sizes)
    logger.info("fetched %d file(s) from %s, %d already there", summary.num_sent, place, summary.num_skipped)
    return run


def _fetch_stage(run: RunDir, stage: str, place: "_Place") -> list[int]:
    """Outputs first, marker last: a cut-off stage does not look done. A stage that is done here stays as it is."""
    done = _relative(run, run.done_file(stage))
    text = place.read(done)
    if text is None:
        return []
    try:
        marker = DoneMarker.model_validate_json(text)
    except ValidationError as error:
        raise StorageError(f"{place}/{done} is damaged ({error}): mirror the stage again.") from error
    here = run.read_done(stage)
    if here is not None and here.outputs != marker.outputs:
        logger.warning("%s is done in %s with other files than at %s: kept", stage, run.root, place)
        return []
    sizes = [place.download(run.root, name, digest) for name, digest in marker.outputs.items()]
    run.done_file(stage).parent.mkdir(parents=True, exist_ok=True)
    partial = run.done_file(stage).with_name("DONE.json.partial")
    partial.write_bytes(text)
    os.replace(partial, run.done_file(stage))
    return sizes


@dataclass(frozen=True)
class _Place:
    """One run's prefix in a bucket. Sizes are bytes moved; 0 means that the file was already there."""

    client: Any
    bucket: str
    prefix: str

    @classmethod
    def of(cls, uri: str, root: Path) -> "_Place":
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not bucket:
            raise StorageError(f"{uri!r} is no S3 address: write s3://bucket/prefix.")
        with _translated(uri):
            client = boto3.client("s3", config=_CONFIG)
        return cls(client, bucket, "/".join(part for part in (prefix.strip("/"), root.resolve().name) if part))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def upload(self, path: Path, name: str, digest: str) -> int:
        if self.stored_digest(name) == digest:
            return 0
        if not path.exists() or file_digest(path) != digest:
            raise StorageError(f"{path} is not what its stage wrote: run the stage again before mirroring it.")
        extra = {"Metadata": {"sha256": digest}, "ChecksumAlgorithm": "SHA256"}
        with _translated(f"{self}/{name}"):
            self.client.upload_file(str(path), self.bucket, f"{self.prefix}/{name}", ExtraArgs=extra)
        return max(1, path.stat().st_size)

    def download(self, root: Path, name: str, digest: str) -> int:
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            raise StorageError(f"{self} names {name!r}, which is outside the run directory: do not trust this copy.")
        if path.exists() and file_digest(path) == digest:
            return 0
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with _translated(f"{self}/{name}"):
            self.client.download_file(self.bucket, f"{self.prefix}/{name}", str(partial))
        if file_digest(partial) != digest:
            partial.unlink()
            raise StorageError(f"{self}/{name} is damaged (its SHA-256 is not {digest}): mirror the stage again.")
        os.replace(partial, path)
        return max(1, path.stat().st_size)

    def stored_digest(self, name: str) -> str | None:
        """The SHA-256 an object was uploaded with; None when there is no such object."""
        with _translated(f"{self}/{name}"):
            try:
                head = self.client.head_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")
            except ClientError as error:
                if _is_absent(error):
                    return None
                raise
        return str(head["Metadata"].get("sha256", ""))

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None when there is no such object."""
        with _translated(f"{self}/{name}"):
            try:
                found = self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")
            except ClientError as error:
                if _is_absent(error):
                    return None
                raise
            content: bytes = found["Body"].read()
        return content


@contextmanager
def _translated(place: str) -> Iterator[None]:
    """boto3's exceptions as ours, with the object they were about."""
    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise StorageError(
            f"S3 refused {place}: {error}. Check that the bucket exists, AWS_ENDPOINT_URL, and the credentials."
        ) from error


def _is_absent(error: ClientError) -> bool:
    return error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey")


def _relative(run: RunDir, path: Path) -> str:
    return path.relative_to(run.root).as_posix()


def _summarise(sizes: list[int]) -> TransferSummary:
    num_sent = sum(size > 0 for size in sizes)
    return TransferSummary(num_sent=num_sent, num_skipped=len(sizes) - num_sent, num_bytes=sum(sizes))
