"""Embedders and the file that remembers vectors."""

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1.bank import embedding
from memr1.bank.embedding import HashEmbedder, MiniLmEmbedder, Vectors, batch_by_length, build_embedder
from memr1.bank.vector_file import VectorFile

SENTENCES = ["Marta lives in Lisbon", "Where does Marta live?", "The stock market fell", "", "é\n'\x00", "word " * 400]


@pytest.fixture(scope="module")
def minilm() -> MiniLmEmbedder:
    embedder = MiniLmEmbedder()
    embedder.embed(SENTENCES)
    return embedder


def test_the_fake_is_deterministic_normalised_and_near_for_shared_words() -> None:
    lisbon, rome, market = HashEmbedder().embed(["Marta lives in Lisbon", "Marta lives in Rome", "stock market fell"])
    assert np.array_equal(HashEmbedder().embed(["marta LIVES in: Lisbon"])[0], lisbon)
    assert np.linalg.norm(lisbon) == pytest.approx(1)
    assert lisbon @ rome > 0.5 > abs(lisbon @ market)


@settings(deadline=None)
@given(st.lists(st.text(), max_size=5))
def test_the_fake_gives_one_unit_row_per_text(texts: list[str]) -> None:
    rows = HashEmbedder(32).embed(texts)
    assert (rows.shape, rows.dtype) == ((len(texts), 32), np.float32)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)


def test_minilm_gives_unit_rows_in_order_and_near_for_like_meanings(minilm: MiniLmEmbedder) -> None:
    rows = minilm.embed(SENTENCES)
    assert (rows.shape, rows.dtype) == ((len(SENTENCES), 384), np.float32)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows[0] @ rows[1] > 0.6
    assert rows[0] @ rows[2] < 0.2
    assert np.array_equal(minilm.embed(SENTENCES[::-1]), rows[::-1])


def test_minilm_is_the_model_that_sentence_transformers_would_run(minilm: MiniLmEmbedder) -> None:
    """First coordinates of "This is an example sentence", as published with the model's usage example."""
    assert minilm.embed(["This is an example sentence"])[0, :3] == pytest.approx([0.0676, 0.0635, 0.0487], abs=1e-4)


def test_a_vector_hardly_depends_on_what_it_was_batched_with(minilm: MiniLmEmbedder) -> None:
    alone = MiniLmEmbedder().embed([SENTENCES[0]])[0]
    assert np.abs(alone - minilm.embed(SENTENCES)[0]).max() < 1e-6


def test_no_text_gives_an_empty_matrix_without_loading_the_model() -> None:
    assert MiniLmEmbedder().embed([]).shape == (0, 384)


def test_a_cached_process_loads_no_model(tmp_path: Path, minilm: MiniLmEmbedder) -> None:
    cache = tmp_path / "deep" / "vectors.sqlite"
    first = build_embedder(cache).embed(SENTENCES)
    program = (
        "import sys; from pathlib import Path; from memr1.bank.embedding import build_embedder\n"
        f"rows = build_embedder(Path({str(cache)!r})).embed({SENTENCES!r})\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "sys.stdout.buffer.write(rows.tobytes())"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE).stdout == first.tobytes()


def test_texts_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, computed = counting_embedder(monkeypatch)
    embedder.embed(["a", "b", "a"])
    embedder.embed(["b", "c"])
    assert computed == ["a", "b", "c"]


def test_memory_forgets_the_oldest_texts_but_answers_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MAX_REMEMBERED", 2)
    embedder, computed = counting_embedder(monkeypatch)
    embedder.embed(["a", "b"])
    assert embedder.embed(["b", "c"]).shape == (2, 384)
    assert embedder.embed(["d", "e", "f"]).shape == (3, 384)
    embedder.embed(["a"])
    assert computed == ["a", "b", "c", "d", "e", "f", "a"]


def counting_embedder(monkeypatch: pytest.MonkeyPatch) -> tuple[MiniLmEmbedder, list[str]]:
    """An embedder whose model is a fake that keeps what it was asked for."""
    computed: list[str] = []

    class CountingModel:
        def embed(self, texts: Sequence[str]) -> Vectors:
            computed.extend(texts)
            return HashEmbedder(384).embed(texts)

    monkeypatch.setattr(embedding, "_MiniLm", CountingModel)
    return MiniLmEmbedder(), computed


def test_threads_may_share_an_embedder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "_MiniLm", lambda: HashEmbedder(384))
    embedder = MiniLmEmbedder(tmp_path / "vectors.sqlite")
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda n: embedder.embed([f"text {n % 20}"])[0], range(200)))
    assert np.array_equal(rows[7], HashEmbedder(384).embed(["text 7"])[0])
    assert np.array_equal(rows[7], rows[187])


def test_batches_are_sorted_by_length_and_bounded() -> None:
    assert batch_by_length([3, 9, 3, 5, 20], 10) == [[4], [1], [3, 0], [2]]
    assert batch_by_length([], 10) == []


@settings(deadline=None)
@given(st.lists(st.integers(1, 40)), st.integers(1, 100))
def test_every_place_is_in_exactly_one_batch(lengths: list[int], limit: int) -> None:
    batches = batch_by_length(lengths, limit)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= limit for batch in batches)


def test_a_vector_file_keeps_models_apart_and_survives_reopening(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    VectorFile(path, "m1", 2).write({"text": np.array([1, 0], np.float32)})
    assert VectorFile(path, "m2", 2).read(["text"]) == {}
    found = VectorFile(path, "m1", 2).read(["text", "other"] + [f"{n}" for n in range(1200)])
    assert list(found) == ["text"]
    assert found["text"].tolist() == [1, 0]


def test_a_vector_of_the_wrong_size_is_not_used(tmp_path: Path) -> None:
    VectorFile(tmp_path / "v", "m", 2).write({"text": np.array([1, 0], np.float32)})
    assert VectorFile(tmp_path / "v", "m", 3).read(["text"]) == {}


@pytest.mark.parametrize("spoil", ["garbage", "folder"])
def test_a_cache_that_cannot_be_used_is_logged_and_gone_without(
    tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vectors.sqlite"
    if spoil == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"not a database, certainly not " * 100)
    monkeypatch.setattr(embedding, "_MiniLm", lambda: HashEmbedder(384))
    with caplog.at_level(logging.WARNING):
        assert MiniLmEmbedder(path).embed(["a"]).shape == (1, 384)
    assert caplog.text.count("going on without it") == 1


def test_a_cache_that_another_process_is_writing_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    file = VectorFile(path, "m", 2)
    file.write({"text": np.array([1, 0], np.float32)})
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert list(file.read(["text"])) == ["text"]
    other.execute("ROLLBACK")
    other.close()
