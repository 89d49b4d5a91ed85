"""A run directory travels to S3 and back, whole or not at all. The server is moto's, on this machine."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from memr1 import storage
from memr1.errors import StorageError
from memr1.run_dir import RunDir
from memr1.storage import fetch_run, mirror_stage

pytestmark = pytest.mark.service
URI = "s3://memory/team/a"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An S3 with one empty bucket."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="memory")
    for item in client.list_objects_v2(Bucket="memory").get("Contents", []):
        client.delete_object(Bucket="memory", Key=item["Key"])
    return client


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose first two stages are done."""
    made = RunDir(tmp_path / "here" / "run7")
    made.data.mkdir(parents=True)
    made.config.write_text('{"seed": 7}', encoding="utf-8")
    made.environment.write_text("{}", encoding="utf-8")
    made.questions.write_text("one\n", encoding="utf-8")
    made.conversations.write_bytes(b"x" * 100_000)
    made.write_done("validate", {"num_turns": 3}, 1.0)
    made.bank.mkdir()
    (made.bank / "entries.jsonl").write_text("", encoding="utf-8")
    (made.bank / "bank.lance").mkdir()
    (made.bank / "bank.lance" / "data").write_text("internal", encoding="utf-8")
    made.write_done("build_bank", {}, 1.0)
    return made


def keys(s3: Any) -> set[str]:
    return {item["Key"].removeprefix("team/a/run7/") for item in s3.list_objects_v2(Bucket="memory")["Contents"]}


def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "there" / "run7"


def test_a_run_arrives_on_another_machine_with_its_stages_done(s3: Any, run: RunDir, tmp_path: Path) -> None:
    mirror_stage(run, "validate", URI)
    mirror_stage(run, "build_bank", URI)
    fetched = fetch_run(URI, elsewhere(tmp_path))
    assert fetched.questions.read_text(encoding="utf-8") == "one\n"
    assert fetched.conversations.read_bytes() == run.conversations.read_bytes()
    assert fetched.environment.exists()
    assert (fetched.bank / "entries.jsonl").exists()
    assert fetched.read_done("validate") == run.read_done("validate")
    assert fetched.read_done("build_bank") == run.read_done("build_bank")
    assert not list(fetched.root.rglob("*.partial"))


def test_what_only_one_machine_can_use_stays_there(s3: Any, run: RunDir) -> None:
    mirror_stage(run, "validate", URI)
    mirror_stage(run, "build_bank", URI)
    assert keys(s3) == {
        "config.json",
        "environment.json",
        "1_data/questions.jsonl",
        "1_data/conversations.jsonl",
        "1_data/DONE.json",
        "2_bank/entries.jsonl",
        "2_bank/DONE.json",
    }


def test_an_interrupted_mirror_sends_only_what_is_missing(s3: Any, run: RunDir) -> None:
    assert mirror_stage(run, "validate", URI).num_sent == 5
    for name in ("1_data/DONE.json", "1_data/questions.jsonl"):
        s3.delete_object(Bucket="memory", Key=f"team/a/run7/{name}")
    again = mirror_stage(run, "validate", URI)
    assert (again.num_sent, again.num_skipped) == (2, 3)
    assert mirror_stage(run, "validate", URI).num_sent == 0


def test_an_interrupted_fetch_brings_only_what_is_missing(s3: Any, run: RunDir, tmp_path: Path) -> None:
    mirror_stage(run, "validate", URI)
    fetched = fetch_run(URI, elsewhere(tmp_path))
    kept = fetched.conversations.stat().st_mtime_ns
    fetched.questions.write_text("cut of", encoding="utf-8")
    fetched.done_file("validate").unlink()
    fetch_run(URI, elsewhere(tmp_path))
    assert fetched.questions.read_text(encoding="utf-8") == "one\n"
    assert fetched.conversations.stat().st_mtime_ns == kept
    assert fetched.read_done("validate") is not None


def test_a_stage_that_was_only_half_mirrored_is_not_fetched(s3: Any, run: RunDir, tmp_path: Path) -> None:
    mirror_stage(run, "validate", URI)
    s3.delete_object(Bucket="memory", Key="team/a/run7/1_data/DONE.json")
    fetched = fetch_run(URI, elsewhere(tmp_path))
    assert fetched.config.exists()
    assert not fetched.data.exists()


def test_a_damaged_object_is_refused_and_its_stage_is_not_done(s3: Any, run: RunDir, tmp_path: Path) -> None:
    mirror_stage(run, "validate", URI)
    s3.put_object(Bucket="memory", Key="team/a/run7/1_data/questions.jsonl", Body=b"two\n")
    with pytest.raises(StorageError, match=r"1_data/questions\.jsonl is damaged"):
        fetch_run(URI, elsewhere(tmp_path))
    there = RunDir(elsewhere(tmp_path))
    assert not there.questions.exists()
    assert not there.done_file("validate").exists()


def test_a_stage_that_is_not_done_or_was_changed_since_is_not_mirrored(s3: Any, run: RunDir) -> None:
    with pytest.raises(StorageError, match=r"train_memory_manager .* is not done"):
        mirror_stage(run, "train_memory_manager", URI)
    run.questions.write_text("changed\n", encoding="utf-8")
    with pytest.raises(StorageError, match=r"questions\.jsonl is not what its stage wrote"):
        mirror_stage(run, "validate", URI)


def test_another_run_is_not_overwritten(s3: Any, run: RunDir, tmp_path: Path) -> None:
    mirror_stage(run, "validate", URI)
    other = RunDir(elsewhere(tmp_path))
    other.root.mkdir(parents=True)
    other.config.write_text('{"seed": 8}', encoding="utf-8")
    with pytest.raises(StorageError, match="differs from the one"):
        fetch_run(URI, other.root)


def test_a_stage_done_here_with_other_files_is_kept(s3: Any, run: RunDir) -> None:
    mirror_stage(run, "validate", URI)
    run.questions.write_text("newer\n", encoding="utf-8")
    run.write_done("validate", {}, 1.0)
    assert fetch_run(URI, run.root).questions.read_text(encoding="utf-8") == "newer\n"


def test_a_copy_that_points_outside_the_run_is_refused(s3: Any, run: RunDir, tmp_path: Path) -> None:
    mirror_stage(run, "validate", URI)
    text = run.done_file("validate").read_text(encoding="utf-8").replace("1_data/questions.jsonl", "../../evil")
    s3.put_object(Bucket="memory", Key="team/a/run7/1_data/DONE.json", Body=text.encode())
    with pytest.raises(StorageError, match="outside the run directory"):
        fetch_run(URI, elsewhere(tmp_path))
    assert not (tmp_path / "evil").exists()


def test_a_missing_run_or_bucket_and_a_wrong_address_are_named(s3: Any, run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no run at s3://memory/team/b/run7"):
        fetch_run("s3://memory/team/b", elsewhere(tmp_path))
    with pytest.raises(StorageError, match=r"S3 refused s3://nowhere/run7/config\.json"):
        mirror_stage(run, "validate", "s3://nowhere")
    with pytest.raises(StorageError, match="is no S3 address"):
        fetch_run("https://memory", elsewhere(tmp_path))


def test_a_server_that_is_down_is_an_error_not_a_wait(s3: Any, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setattr(storage, "_CONFIG", storage._CONFIG.merge(storage.Config(retries={"max_attempts": 1})))
    with pytest.raises(StorageError, match="Check that the bucket exists, AWS_ENDPOINT_URL"):
        mirror_stage(run, "validate", URI)
