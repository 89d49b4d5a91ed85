"""What only the Weaviate store can get wrong: its server away, refusing, or holding something else than the journal."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from memr1.bank import connection
from memr1.bank.embedding import HashEmbedder
from memr1.bank.mirrored import cut_into_calls
from memr1.bank.weaviate_address import Endpoint, WeaviateAddress, read_address
from memr1.bank.weaviate_bank import WeaviateStore
from memr1.bank.weaviate_names import object_id, tenant_name
from memr1.config import WeaviateBank
from memr1.errors import BankError, BankUnavailable, ConfigError
from tests.bank_histories import SCOPES, CountingEmbedder, apply_step, apply_steps, assert_same_banks
from tests.weaviate_double import WeaviateDouble, running_double

ROOT = Path(__file__).parents[3]  # where `tests` can be imported from
PATIENT = WeaviateBank(kind="weaviate", timeout_seconds=20, wait_seconds=60)
RESTLESS = WeaviateBank(kind="weaviate", timeout_seconds=4, wait_seconds=60)
HASTY = WeaviateBank(kind="weaviate", timeout_seconds=2, wait_seconds=1)


@pytest.fixture
def double() -> Iterator[WeaviateDouble]:
    with running_double() as running:
        yield running


def open_store(folder: Path, double: WeaviateDouble, options: WeaviateBank = PATIENT) -> WeaviateStore:
    return WeaviateStore(folder, HashEmbedder(), options, double.address)


def assert_undisturbed(folder: Path, double: WeaviateDouble, num_steps: int) -> None:
    """The store in `folder` equals one that applied the same steps in peace; so do the server's rows after closing."""
    with closing(open_store(folder, double)) as store:
        reference = assert_same_banks(store, num_steps)
    assert server_texts(double) == sorted(
        (scope, entry.text) for scope in reference.scopes() for entry in reference.bank(scope).entries()
    )


def server_texts(double: WeaviateDouble) -> list[tuple[str, str]]:
    return sorted((properties["scope"], properties["text"]) for properties, _ in double.rows())


def test_the_server_is_in_line_after_every_change(tmp_path: Path, double: WeaviateDouble) -> None:
    with closing(open_store(tmp_path, double)) as store:
        for step in range(12):
            apply_step(store, step)
            held = [(scope, entry.text) for scope in store.scopes() for entry in store.bank(scope).entries()]
            assert server_texts(double) == sorted(held)
    assert_undisturbed(tmp_path, double, 12)


def test_a_group_of_changes_is_one_write(tmp_path: Path, double: WeaviateDouble) -> None:
    with closing(open_store(tmp_path, double)) as store:
        before = double.num_calls
        with store.group_commits():
            apply_steps(store, 1, 3)
            assert server_texts(double) == []
        assert double.num_calls == before + 2  # one for each of two scopes
        assert len(server_texts(double)) == 4


def test_a_row_holds_everything_of_its_entry(tmp_path: Path, double: WeaviateDouble) -> None:
    with closing(open_store(tmp_path, double)) as store:
        apply_step(store, 1)
        entry = store.bank("c2").entries()[0]
    ((key, (properties, vector)), _) = sorted(double.tenants["MemoryEntry"][one_tenant(double)].items(), key=by_text)
    assert key == str(object_id(one_tenant(double), "1"))
    assert {name: properties[name] for name in ("text", "speaker", "time", "turn_ids", "scope", "entry_id")} == {
        "text": entry.text,
        "speaker": "Marta",
        "time": "2024-05-01T00:00:00",
        "turn_ids": ["D1:1"],
        "scope": "c2",
        "entry_id": "1",
    }
    assert vector == HashEmbedder().embed([entry.text])[0].astype("<f4").tobytes()


def one_tenant(double: WeaviateDouble) -> str:
    (tenant,) = double.tenants["MemoryEntry"]
    assert tenant == tenant_name(tenant.split("-")[0], "c2")
    return tenant


def by_text(item: tuple[str, tuple[dict[str, str], bytes]]) -> str:
    return item[1][0]["text"]


def test_reopening_takes_vectors_from_the_server(tmp_path: Path, double: WeaviateDouble) -> None:
    with closing(open_store(tmp_path, double)) as store:
        apply_steps(store, 0, 10)
    embedder = CountingEmbedder()
    with closing(WeaviateStore(tmp_path, embedder, PATIENT, double.address)) as store:
        for scope in store.scopes():
            store.bank(scope).retrieve("question", speaker=None, limit=3)
    assert embedder.texts == ["question"] * 3


def test_a_server_that_lost_its_data_is_filled_again(tmp_path: Path, double: WeaviateDouble) -> None:
    with closing(open_store(tmp_path, double)) as store:
        apply_steps(store, 0, 10)
    double.schema.clear()
    double.tenants.clear()
    assert_undisturbed(tmp_path, double, 10)


def test_rows_that_differ_from_the_journal_are_replaced_and_surplus_ones_removed(
    tmp_path: Path, double: WeaviateDouble
) -> None:
    with closing(open_store(tmp_path, double)) as store:
        apply_steps(store, 0, 6)
        end = (tmp_path / "journal.jsonl").stat().st_size
        apply_steps(store, 6, 9)
    with (tmp_path / "journal.jsonl").open("r+b") as file:
        file.truncate(end + 50)
    assert_undisturbed(tmp_path, double, 6)


def test_every_refused_row_is_named_and_no_change_is_taken_before_it_is_accepted(
    tmp_path: Path, double: WeaviateDouble, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_store(tmp_path, double)) as store:
        double.refuse = lambda properties: "the store is read-only" if properties["text"] == "fact 1 b" else ""
        apply_step(store, 1)
        assert "refused 1 of 2 rows: entry '2' of scope 'c2': the store is read-only" in caplog.text
        with pytest.raises(BankError, match="entry '2' of scope 'c2': the store is read-only"):
            apply_step(store, 2)
        assert store.scopes() == ["c2"]
        double.refuse = lambda properties: ""
        apply_step(store, 2)
        assert len(server_texts(double)) == 4


def test_all_rows_refused_are_named_too(tmp_path: Path, double: WeaviateDouble) -> None:
    store = open_store(tmp_path, double)
    double.refuse = lambda properties: "out of disk"
    apply_step(store, 1)
    with pytest.raises(BankError, match=r"refused 2 of 2 rows: entry '1' of scope 'c2': .*out of disk.*; entry '2'"):
        store.close()


def test_a_server_that_comes_back_is_waited_for(
    tmp_path: Path, double: WeaviateDouble, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_store(tmp_path, double, RESTLESS)) as store:
        apply_steps(store, 0, 5)
        double.stop()
        back = threading.Timer(8, double.start)
        back.start()
        apply_steps(store, 5, 9)
        back.join()
    assert "Waiting for it" in caplog.text
    assert_undisturbed(tmp_path, double, 9)


def test_a_server_that_stays_away_ends_the_build_and_the_next_run_goes_on(
    tmp_path: Path, double: WeaviateDouble
) -> None:
    store = open_store(tmp_path, double, HASTY)
    apply_steps(store, 0, 5)
    double.stop()
    try:
        apply_steps(store, 5, 6)  # an empty turn writes nothing
        apply_step(store, 6)  # in the journal, not on the server
        started = time.monotonic()
        with pytest.raises(BankUnavailable, match=r"does not answer.*\$WEAVIATE_URL"):
            apply_step(store, 7)
        with pytest.raises(BankUnavailable):
            store.close()
        with pytest.raises(BankUnavailable):
            open_store(tmp_path, double, HASTY)
        assert time.monotonic() - started < 25
    finally:
        double.start()
    with closing(open_store(tmp_path, double)) as store:
        turns = {record.source.turn_id for scope in store.scopes() for record in store.bank(scope).journal()}
        assert turns == {f"D1:{step}" for step in range(7)}
        apply_steps(store, 7, 12)
    assert_undisturbed(tmp_path, double, 12)


def test_by_default_a_lost_server_is_given_up_within_thirty_seconds() -> None:
    longest = WeaviateBank(kind="weaviate").wait_seconds + connection.PAUSE_SECONDS + connection.PROBE_SECONDS
    assert 20 < longest < 30


def test_reading_goes_on_without_a_server(
    tmp_path: Path, double: WeaviateDouble, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_store(tmp_path, double)) as store:
        apply_steps(store, 0, 5)
    with closing(open_store(tmp_path, double, HASTY)) as store:
        double.stop()
        assert_same_banks(store, 5)
        double.start()
    assert "Embedding scope" in caplog.text


def test_a_server_that_accepts_but_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as http, socket.create_server(("127.0.0.1", 0)) as grpc:
        ports = [Endpoint("127.0.0.1", each.getsockname()[1], False) for each in (http, grpc)]
        started = time.monotonic()
        with pytest.raises(BankUnavailable, match="does not answer"):
            WeaviateStore(tmp_path, HashEmbedder(), HASTY, WeaviateAddress(*ports))
        assert time.monotonic() - started < 20


def test_a_collection_of_another_embedder_is_refused_with_advice(tmp_path: Path, double: WeaviateDouble) -> None:
    open_store(tmp_path / "a", double).close()
    with pytest.raises(BankError, match=r"\"dimension\": 256.*\"dimension\": 16.*set bank.collection"):
        WeaviateStore(tmp_path / "b", HashEmbedder(16), PATIENT, double.address)
    open_store(tmp_path / "b", double).close()  # nothing of the refused store holds the folder


def test_a_collection_of_somebody_else_is_refused(tmp_path: Path, double: WeaviateDouble) -> None:
    open_store(tmp_path / "a", double).close()
    double.schema["MemoryEntry"]["description"] = "my recipes"
    with pytest.raises(BankError, match="my recipes"):
        open_store(tmp_path / "b", double)


def test_two_stores_that_begin_at_once_share_the_collection(tmp_path: Path, double: WeaviateDouble) -> None:
    stores = [open_store(tmp_path / name, double) for name in "ab"]
    for place, store in enumerate(stores):
        apply_steps(store, 0, 4 + place)
    for store in stores:
        store.close()
    for place, name in enumerate("ab"):
        with closing(open_store(tmp_path / name, double)) as store:
            assert_same_banks(store, 4 + place)


def test_the_key_is_sent_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    with running_double(api_key="right") as double:
        with closing(open_store(tmp_path / "a", double)) as store:
            apply_steps(store, 0, 3)
        wrong = WeaviateAddress(double.address.http, double.address.grpc, "wrong")
        with pytest.raises(BankError, match=r"refuses access: set \$WEAVIATE_API_KEY") as raised:
            WeaviateStore(tmp_path / "b", HashEmbedder(), PATIENT, wrong)
        assert not isinstance(raised.value, BankUnavailable)
        assert "right" not in str(double.address) + repr(double.address)


def test_the_collection_is_made_for_our_own_vectors_and_tenants(tmp_path: Path, double: WeaviateDouble) -> None:
    options = WeaviateBank(kind="weaviate", collection="Mine", replication_factor=3, consistency="ALL")
    open_store(tmp_path, double, options).close()
    schema = double.schema["Mine"]
    assert schema["replicationConfig"]["factor"] == 3
    assert schema["multiTenancyConfig"] == {
        "enabled": True,
        "autoTenantCreation": True,
        "autoTenantActivation": True,
    }
    assert schema["vectorConfig"]["default"]["vectorIndexType"] == "flat"
    assert schema["vectorConfig"]["default"]["vectorIndexConfig"]["distance"] == "cosine"
    indexed = {item["name"]: (item["indexFilterable"], item["indexSearchable"]) for item in schema["properties"]}
    assert indexed["text"] == (False, True)
    assert indexed["speaker"] == indexed["time"] == indexed["turn_ids"] == (True, False)
    assert indexed["scope"] == indexed["entry_id"] == indexed["digest"] == (False, False)


def test_the_address_comes_from_the_environment() -> None:
    local = read_address({"WEAVIATE_URL": "http://127.0.0.1:8080", "WEAVIATE_API_KEY": " k "})
    assert local == WeaviateAddress(Endpoint("127.0.0.1", 8080, False), Endpoint("127.0.0.1", 50051, False), "k")
    cloud = read_address({"WEAVIATE_URL": "https://a.example/", "WEAVIATE_GRPC_URL": "https://grpc-a.example:443"})
    assert cloud == WeaviateAddress(Endpoint("a.example", 443, True), Endpoint("grpc-a.example", 443, True))
    assert read_address({"WEAVIATE_URL": "embedded"}) is None


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://a", "http://", "http://a:x", "http://a/path"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\$WEAVIATE_URL is .*docker compose up"):
        read_address({"WEAVIATE_URL": url})


def test_one_port_for_both_protocols_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"two ports.*\$WEAVIATE_GRPC_URL"):
        read_address({"WEAVIATE_URL": "https://a.example", "WEAVIATE_GRPC_URL": "https://a.example:443"})


def test_an_embedded_server_that_cannot_be_downloaded_says_what_to_do(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    environ = {
        **os.environ,
        "https_proxy": nowhere,
        "HTTPS_PROXY": nowhere,
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "MEMR1_HOME": str(tmp_path),
    }
    script = "from memr1.bank.weaviate_bank import start_embedded; start_embedded()"
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True)
    assert "BankUnavailable" in done.stderr and "without internet start a server yourself" in done.stderr


def test_a_killed_build_goes_on_as_if_nothing_had_happened(tmp_path: Path, double: WeaviateDouble) -> None:
    address = double.address
    program = (
        "import sys; from pathlib import Path\n"
        "from memr1.bank.weaviate_address import read_address\n"
        "from memr1.bank.weaviate_bank import WeaviateStore\n"
        "from memr1.bank.embedding import HashEmbedder\n"
        "from memr1.config import WeaviateBank\n"
        "from tests.bank_histories import apply_step\n"
        f"address = read_address({{'WEAVIATE_URL': '{address.http}', 'WEAVIATE_GRPC_URL': '{address.grpc}'}})\n"
        "options = WeaviateBank(kind='weaviate', timeout_seconds=20, wait_seconds=60)\n"
        f"store = WeaviateStore(Path({str(tmp_path)!r}), HashEmbedder(), options, address)\n"
        "for step in range(10_000):\n"
        "    apply_step(store, step)\n"
        "    print(step, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for _ in range(15):
            assert process.stdout.readline(), "the process ended by itself"
        process.kill()
    with closing(open_store(tmp_path, double)) as store:
        turns = {record.source.turn_id for scope in store.scopes() for record in store.bank(scope).journal()}
        apply_steps(store, len(turns), len(turns) + 4)
    assert len(turns) >= 15
    assert_undisturbed(tmp_path, double, len(turns) + 4)


def test_the_client_stays_quiet_about_what_we_tell_ourselves(
    tmp_path: Path, double: WeaviateDouble, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), closing(open_store(tmp_path, double)) as store:
        apply_steps(store, 0, 6)
    assert caplog.records == []
    assert set(SCOPES) == set(store.scopes())


def test_rows_are_cut_into_calls_that_stay_within_both_limits() -> None:
    rows = [1, 1, 1, 1, 5, 9, 2, 2]
    assert [rows[call] for call in cut_into_calls(rows, max_rows=3, max_bytes=6)] == [[1, 1, 1], [1, 5], [9], [2, 2]]
    assert list(cut_into_calls([], max_rows=3, max_bytes=6)) == []
